"""The shared table of instance families."""

from monad_dagster.spcs.instance_families import load_instance_families


def test_documented_pool_family_has_its_documented_shape():
    """GPU_NV_S is one A10G on a node with 28 GiB."""
    family = load_instance_families()["GPU_NV_S"]
    assert (family.vcpu, family.memory_gib, family.gpu_count, family.gpu) == (6, 28, 1, "A10G")


def test_cloud_narrows_the_families():
    """A family that only AWS offers is absent elsewhere."""
    assert "GPU_NV_S" in load_instance_families("aws")
    assert "GPU_NV_S" not in load_instance_families("azure")


def test_same_name_may_have_another_shape_on_another_cloud():
    """HIGHMEM_X64_SL differs between Azure and Google Cloud."""
    azure = load_instance_families("azure")["HIGHMEM_X64_SL"]
    gcp = load_instance_families("gcp")["HIGHMEM_X64_SL"]
    assert (azure.vcpu, gcp.vcpu) == (60, 92)


def test_gpu_families_state_memory_of_one_gpu():
    """Memory is per GPU, as SHOW COMPUTE POOL INSTANCE FAMILIES has it."""
    family = load_instance_families()["GPU_NV_M"]
    assert (family.gpu_count, family.gpu_memory_gib) == (4, 24)
