"""What a reader can't do, whatever a file makes of it: reach a network, start a process, write a file, send a signal.

The kernel refuses, for this process and those below it, and nothing takes it back: system calls by seccomp (through
libseccomp, which knows their numbers), writing by Landlock, where the kernel has it (since 5.13). What is open already,
such as the output, stays usable.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache

_NETWORK = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "io_uring_setup")
_PROCESSES = ("fork", "vfork", "execve", "execveat")
_SIGNALS = ("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal")
_OTHERS = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "perf_event_open", "bpf", "userfaultfd"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_by_handle_at"),
    *("keyctl", "add_key", "request_key", "setsid", "setpgid"),
)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # libseccomp's actions
_MASKED_EQUAL = 7  # its comparison (argument & first) == second
_CLONE_THREAD = 0x00010000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture
_LANDLOCK_VERSION = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def confine(*, may_start_processes: bool) -> None:
    """Confine this process from here on. Raises OSError when the kernel or the machine can't."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _error("no_new_privs")
    _forbid_writing()
    _forbid_calls((*_NETWORK, *_OTHERS, *(() if may_start_processes else (*_PROCESSES, *_SIGNALS))))


@cache
def libseccomp() -> ctypes.CDLL:
    """Raises OSError where it is not installed."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    return library


def _forbid_calls(names: Iterable[str]) -> None:
    """Each is refused with EPERM. A new thread is no new process."""
    library = libseccomp()
    rules = library.seccomp_init(_ALLOW)

    def forbid(name: str, code: int, *when: _Comparison) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        compared = (_Comparison * max(len(when), 1))(*when)
        failed = library.seccomp_rule_add_array(rules, _ERRNO | code, number, len(when), compared)
        if failed and -failed != errno.EDOM:  # EDOM: this architecture has no such call
            raise OSError(-failed, f"seccomp can't forbid {name}")

    names = tuple(names)
    for name in names:
        forbid(name, errno.EPERM)
    if "fork" in names:
        forbid("clone", errno.EPERM, _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
        forbid("clone3", errno.ENOSYS)  # its flags lie in memory; the C library then asks for clone
    if failed := library.seccomp_load(rules):
        raise OSError(-failed, "seccomp can't confine this process")


def _forbid_writing() -> None:
    """No file is opened for writing, made, renamed or removed; no signal and no abstract socket leaves, since 6.12."""
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return
    kinds = 13 + min(version - 1, 2)  # of access: two came later
    reading = 0b1101  # execute, read a file, list a folder
    ruleset = _Ruleset((1 << kinds) - 1 & ~reading, 0b11, 0b11)
    known_bytes = 8 if version < 4 else 16 if version < 6 else 24
    descriptor = _libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(known_bytes), 0)
    if descriptor < 0 or _libc.syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0):
        raise _error("landlock")
    os.close(descriptor)


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
