"""The head of each task."""

from monad.model.amounts import AmountHead
from monad.model.head import Head
from monad.model.heads import ScoreHead
from monad.model.items import ItemField, ItemHead, NextItemHead
from monad.model.network import Network
from monad.tasks import RegressionTask, Task


def build_head(task: Task, network: Network, items: ItemField | None, next_item: bool) -> Head:
    """Make the head of a task, for which the network's branch of aggregates is set.

    *next_item* says whether a recommendation asks for the next event's item.
    """
    made = _head(task, network, items, next_item)
    network.panel.reach = made.reach
    return made


def _head(task: Task, network: Network, items: ItemField | None, next_item: bool) -> Head:
    size, outcomes = network.size, network.panel.outlook.outputs
    if task.kind == "regression":
        assert isinstance(task, RegressionTask)
        return AmountHead(task, size.summary, size.dropout, outcomes)
    if task.kind == "recommendation":
        assert items is not None
        return NextItemHead(items.position, items.size) if next_item else ItemHead(items, network)
    return ScoreHead(task.kind, task.num_outputs, size.summary, size.dropout, outcomes)
