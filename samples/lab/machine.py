"""Boots the distribution's stock kernel in qemu and plays scenarios in it.

Everything comes from distribution packages: the kernel package is unpacked, never installed, and
debootstrap makes the root file system that travels as an initramfs. The guest has no network card;
scripts and captures pass through two shared folders (9p). It needs root, for debootstrap only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNEL_PACKAGE = "linux-image-6.1.0-56-amd64"
SUITE = "bookworm"
PROGRAMS = (
    *("iproute2", "ipvsadm", "iptables", "nftables", "ethtool", "conntrack", "kmod", "procps"),
    *("tcpdump", "traceroute", "iputils-ping", "iputils-arping", "python3"),
)
MODULES = (
    *("9p", "9pnet_virtio", "virtio_pci", "veth", "bridge", "ipip", "ip_gre", "fou", "fou6"),
    *("ip6_tunnel", "ip6_gre", "sit"),
)
MODULE_FOLDERS = ("net/netfilter", "net/ipv4/netfilter", "net/ipv6/netfilter", "net/sched")
UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache", "var/lib/apt")
"""What no program in the guest reads."""
BOOT_SECONDS = {"kvm": 30, "tcg": 600}
"""Hardware acceleration may hang at boot where the machine is itself virtual; emulation does not,
but may have to share the processors."""
CLOCKS = {
    "kvm": "tsc=reliable no_timer_check",
    "tcg": "clocksource=hpet tsc=unstable no_timer_check",
}
"""The time stamp counter is measured at boot; on busy processors emulation gets that wrong, and the
guest's time then runs many times too fast."""
SCENARIO_SECONDS = 240
"""More than any scenario takes on a slow guest."""


def main() -> int:
    """Parse the command line, build what is missing, play."""
    parser = argparse.ArgumentParser(prog="samples/lab/run", description=__doc__)
    parser.add_argument("name", nargs="*", help="scenario, as in --list")
    parser.add_argument("--all", action="store_true", help="play every scenario")
    parser.add_argument("--list", action="store_true", help="print the scenarios' names")
    parser.add_argument("--out", type=Path, default=Path("lab-out"), help="where captures go")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/pcapdiag-lab")
    parser.add_argument("--accel", choices=("kvm", "tcg"), help="default: kvm, then tcg")
    parser.add_argument("--at-once", type=int, default=3, help="scenarios played at a time")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE / "guest"))
    from scenarios import SCENARIOS  # noqa: PLC0415  found beside this file only

    if options.list:
        print("\n".join(SCENARIOS))
        return 0
    names = list(SCENARIOS) if options.all else options.name
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        parser.error(f"no such scenario: {' '.join(unknown)}" if unknown else "which scenario?")
    kernel, initramfs = build(options.cache)
    options.out.mkdir(parents=True, exist_ok=True)
    work = " ".join([str(options.at_once), *names])
    for accel in [options.accel] if options.accel else accelerations():
        if boot(accel, kernel, initramfs, options.out.resolve(), work, len(names)):
            break
    missing = [name for name in names if not (options.out / name / "truth.json").exists()]
    for name in missing:
        print(f"{name}: FAILED, see {options.out / name / 'log.txt'}", file=sys.stderr)
    return 1 if missing else 0


def accelerations() -> list[str]:
    """Return what to try, fastest first."""
    return ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]


def build(cache: Path) -> tuple[Path, Path]:
    """Return the kernel and the initramfs, made on first use."""
    cache.mkdir(parents=True, exist_ok=True)
    release = KERNEL_PACKAGE.removeprefix("linux-image-")
    kernel = cache / "kernel" / "boot" / f"vmlinuz-{release}"
    initramfs = cache / "initramfs.zst"
    if not kernel.exists():
        subprocess.run(["apt-get", "download", KERNEL_PACKAGE], cwd=cache, check=True)
        package = next(cache.glob(f"{KERNEL_PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, cache / "kernel"], check=True)
    root = cache / "root"
    if not (root / "usr" / "sbin" / "ipvsadm").exists():
        include = f"--include={','.join(PROGRAMS)}"
        subprocess.run(["debootstrap", "--variant=minbase", include, SUITE, root], check=True)
    init = (HERE / "guest" / "init").read_bytes()
    if not initramfs.exists() or (root / "init").read_bytes() != init:
        copy_modules(cache / "kernel", root, release)
        (root / "init").write_bytes(init)
        (root / "init").chmod(0o755)
        pack(root, initramfs)
    return kernel, initramfs


def copy_modules(package: Path, root: Path, release: str) -> None:
    """Copy the modules that the lab needs, with what they depend on."""
    tree = package / "lib" / "modules" / release
    subprocess.run(["depmod", "-b", package, release], check=True)
    folders = [tree / "kernel" / folder for folder in MODULE_FOLDERS]
    names = [*MODULES, *(path.stem for folder in folders for path in folder.rglob("*.ko"))]
    shown = subprocess.run(
        ["modprobe", "-d", package, "-S", release, "--show-depends", "-a", *names],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {Path(line.split()[1]) for line in shown.stdout.splitlines() if "insmod" in line}
    target = root / "lib" / "modules" / release
    shutil.rmtree(target, ignore_errors=True)
    for path in wanted | set(tree.glob("modules.builtin*")) | {tree / "modules.order"}:
        copy = target / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    subprocess.run(["depmod", "-b", root, release], check=True)


def pack(root: Path, initramfs: Path) -> None:
    """Pack the root file system without what only people read."""
    names = sorted(path.relative_to(root) for path in root.rglob("*"))
    kept = [str(name) for name in names if not any(name.is_relative_to(item) for item in UNREAD)]
    with initramfs.open("wb") as out:
        archive = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"],
            input="\n".join(kept).encode(),
            cwd=root,
            stdout=subprocess.PIPE,
            check=True,
        )
        subprocess.run(["zstd", "-q", "-3", "-T2"], input=archive.stdout, stdout=out, check=True)


def boot(accel: str, kernel: Path, initramfs: Path, out: Path, work: str, count: int) -> bool:
    """Run a guest until it powers off; return whether it came up."""
    (out / "booted").unlink(missing_ok=True)
    (out / "work").write_text(work + "\n")
    command = [
        *("qemu-system-x86_64", "-accel", accel, "-smp", "2", "-m", "2048", "-nographic"),
        *("-cpu", "host" if accel == "kvm" else "max", "-no-reboot", "-nic", "none"),
        *("-kernel", kernel, "-initrd", initramfs),
        *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off {CLOCKS[accel]}"),
        *share("lab", HERE / "guest", readonly=True),
        *share("out", out),
    ]
    with (out / "console.log").open("wb") as console:
        guest = subprocess.Popen(
            ["nice", "-n", "5", *command], stdin=subprocess.DEVNULL, stdout=console
        )
    try:
        guest.wait(BOOT_SECONDS[accel])
    except subprocess.TimeoutExpired:
        if (out / "booted").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                guest.wait(SCENARIO_SECONDS * count)
    finally:
        guest.kill()
        guest.wait()
    return (out / "booted").exists()


def share(tag: str, folder: Path, *, readonly: bool = False) -> list[str]:
    """Return the options that show a folder to the guest."""
    where = f"local,path={folder},mount_tag={tag},security_model=none"
    return ["-virtfs", where + (",readonly=on" if readonly else "")]


if __name__ == "__main__":
    sys.exit(main())
