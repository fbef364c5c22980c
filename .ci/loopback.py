"""Bring the loopback interface of this network namespace up (`ip link set lo up`)."""

import fcntl
import socket
import struct

SIOCSIFFLAGS = 0x8914
IFF_UP, IFF_RUNNING = 0x1, 0x40

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING)
    fcntl.ioctl(control, SIOCSIFFLAGS, request)
