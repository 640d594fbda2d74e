# Source of PROBE_CODE in system_images.py:
#   as probe.s -o probe.o && ld -n -o probe probe.o && objcopy -O binary -j .text probe probe.bin
.intel_syntax noprefix
.globl _start
_start:
  # fd = open("/monad/volume/target", O_RDONLY)
  mov eax, 2
  lea rdi, [rip+target]
  xor esi, esi
  xor edx, edx
  syscall
  mov r12d, 10
  test eax, eax
  js fail
  # read(fd, sp, 16)
  sub rsp, 32
  mov edi, eax
  mov rsi, rsp
  mov edx, 16
  xor eax, eax
  syscall
  cmp eax, 16
  jne fail
  # socket(AF_INET, SOCK_STREAM, 0)
  mov eax, 41
  mov edi, 2
  mov esi, 1
  xor edx, edx
  syscall
  mov r12d, 11
  test eax, eax
  js fail
  mov ebx, eax
  # connect(fd, sp, 16)
  mov eax, 42
  mov edi, ebx
  mov rsi, rsp
  mov edx, 16
  syscall
  test eax, eax
  js fail
  # write(fd, request)
  mov eax, 1
  mov edi, ebx
  lea rsi, [rip+request]
  mov edx, offset request_size
  syscall
  mov r12d, 12
  # read(fd, sp, 16)
  xor eax, eax
  mov edi, ebx
  mov rsi, rsp
  mov edx, 16
  syscall
  cmp eax, 4
  jl fail
  # open("/monad/volume/ok", O_WRONLY|O_CREAT, 0644)
  mov eax, 2
  lea rdi, [rip+result]
  mov esi, 65
  mov edx, 420
  syscall
  mov r12d, 13
  test eax, eax
  js fail
  # write(1, "ok\n", 3)
  mov eax, 1
  mov edi, 1
  lea rsi, [rip+done]
  mov edx, 3
  syscall
  xor r12d, r12d
fail:
  mov eax, 60
  mov edi, r12d
  syscall
target: .asciz "/monad/volume/target"
result: .asciz "/monad/volume/ok"
request: .ascii "GET /monad/ready HTTP/1.0\r\n\r\n"
.set request_size, . - request
done: .ascii "ok\n"
# The second program of the image, `pause`, holds an instance's network:
#   again: mov eax, 34; syscall; jmp again
