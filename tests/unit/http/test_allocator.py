import platform
import subprocess
import sys

import pytest

from opsapi.http.allocator import keep_freed_memory


def test_on_glibc_freed_memory_is_kept() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this machine's C library is not glibc")
    program = "from opsapi.http.allocator import keep_freed_memory; print(keep_freed_memory())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"


def test_elsewhere_it_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
