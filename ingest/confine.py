"""What a parser process gives up before it opens a stranger's file. Linux; every step says whether it took effect.

- resources: memory, CPU seconds, file size, open files, no core dumps (`limit_resources`)
- files: Landlock; reads only what the interpreter needs and the one file, writes only its folder (`restrict_files`)
- system calls: seccomp; no sockets, no signals to or tracing of others, no new namespaces, no raised limits, and
  where a format needs no other program, no program either (`restrict_calls`)
- capabilities: as root, all but reading (`drop_capabilities`)

Not limited: the number of processes while a program may be started (a limit would count all of the user's), and the
sum of the sizes of the files in the folder.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_CAP_DAC_READ_SEARCH = 2

# Numbers of system calls: x86_64, aarch64 (None where the architecture has none). From the kernel's tables.
_DENIED: dict[str, tuple[int | None, int]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setrlimit": (160, 164),
    "io_uring_setup": (425, 425),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "mknod": (133, 33),
    "mknodat": (259, 33),
}
_PROGRAMS = {"execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None)}
_TGKILL, _PRLIMIT, _CLONE, _CLONE3 = (234, 131), (302, 261), (56, 220), (435, 435)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x10000

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_CHANGE = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Call in a fresh fork."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit_resources(*, memory_bytes: int, cpu_seconds: int, file_bytes: int, open_files: int) -> None:
    """Limit this process and its children. `memory_bytes` come on top of the address space in use now."""
    _set_limit(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _set_limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 2)
    _set_limit(resource.RLIMIT_FSIZE, file_bytes)
    _set_limit(resource.RLIMIT_NOFILE, open_files)
    _set_limit(resource.RLIMIT_CORE, 0)


def drop_capabilities() -> bool:
    """As root, keep only the capability to read any file. True where this process now has no other."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return True
    libc = _libc()
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    keep = 1 << _CAP_DAC_READ_SEARCH
    header = struct.pack("=Ii", 0x20080522, 0)
    return int(libc.capset(header, struct.pack("=6I", keep, keep, 0, 0, 0, 0))) == 0


def forbid_new_privileges() -> bool:
    """Set-uid programs no longer raise rights; Landlock and seccomp ask for this from ordinary users."""
    return sys.platform == "linux" and int(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) == 0


def restrict_files(readable: Iterable[str | Path], writable: Iterable[str | Path]) -> bool:
    """Landlock: beneath `readable` read and run, beneath `writable` read and write. False: not in force."""
    if sys.platform != "linux":
        return False
    libc = _libc()
    version = int(libc.syscall(_LANDLOCK_CREATE, None, 0, 1))
    if version < 1:
        return False
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = struct.pack("=QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = rules[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = int(libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0))
    if ruleset < 0:
        return False
    try:
        for paths, rights in ((readable, _READ), (writable, _CHANGE), (_DEVICES, _READ_FILE | _WRITE_FILE)):
            for path in paths:
                _allow(libc, ruleset, path, rights & handled)
        return int(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def restrict_calls(*, programs: bool) -> bool:
    """Seccomp: refuse the calls listed above with EPERM; without `programs` also exec and fork. False: not in force."""
    known = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    column, architecture = known
    code = _filter(column, architecture, programs)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    return int(_libc().prctl(_PR_SET_SECCOMP, 2, program, 0, 0)) == 0


def readable_by_default(package: Path) -> list[str]:
    """What this interpreter, its libraries and the loaders in `package` read. No settings, no data, no home."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, str(package)}
    found |= {entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages", ".zip"))}
    found |= {os.path.dirname(os.path.realpath(sys.executable)), os.path.dirname(os.__file__)}
    found |= {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"}
    return sorted(path for path in found if path not in ("", "/") and os.path.exists(path))


_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _allow(libc: ctypes.CDLL, ruleset: int, path: str | Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def _filter(column: int, architecture: int, programs: bool) -> bytes:
    """The BPF program. It reads `struct seccomp_data`: number at 0, architecture at 4, arguments from 16."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (answer, 0, 0, _KILL),
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000),  # the x32 numbers
        (answer, 0, 0, _ERRNO | _ENOSYS),
    ]

    def deny(number: int | None, error: int = _EPERM) -> None:
        if number is not None:
            steps.extend([(equal, 0, 1, number), (answer, 0, 0, _ERRNO | error)])

    def allow_only(number: int, argument: int, test: int, value: int) -> None:
        """Refuse the call unless its argument passes the test."""
        checks = [
            (load, 0, 0, 16 + 8 * argument),
            (test, 1, 0, value),
            (answer, 0, 0, _ERRNO | _EPERM),
            (load, 0, 0, 0),
        ]
        steps.extend([(equal, 0, len(checks), number), *checks])

    for numbers in _DENIED.values():
        deny(numbers[column])
    allow_only(_TGKILL[column], 0, equal, os.getpid())  # a process may abort itself
    allow_only(_PRLIMIT[column], 2, equal, 0)  # limits may be read
    if not programs:
        for maybe in _PROGRAMS.values():
            deny(maybe[column])
        allow_only(_CLONE[column], 0, any_bit, _CLONE_THREAD)
        deny(_CLONE3[column], _ENOSYS)  # the C library then falls back to clone
    steps.append((answer, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _set_limit(which: int, soft: int, hard: int | None = None) -> None:
    _, present = resource.getrlimit(which)
    wanted = soft if hard is None else hard
    ceiling = wanted if present == resource.RLIM_INFINITY else min(wanted, present)
    resource.setrlimit(which, (min(soft, ceiling), ceiling))


def _address_space() -> int:
    """Bytes of address space that this process has now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**30


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
