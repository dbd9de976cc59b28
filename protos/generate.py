"""Generate the Python code of the contract: messages, gRPC stubs, and the types of both.

    python protos/generate.py [--out DIR]

For each proto of this folder this writes `_pb2.py` and `_pb2.pyi`, and where the proto defines a service also
`_pb2_grpc.py` and `_pb2_grpc.pyi`, to the same path under DIR (the folder `client` unless named). Generated files that
no proto accounts for are removed; all other files are left alone. The output depends only on the protos and on the
versions of grpcio-tools and mypy-protobuf.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTOS = Path(__file__).resolve().parent
DEFAULT_OUT = PROTOS.parent / "client"
MESSAGE_SUFFIXES = ("_pb2.py", "_pb2.pyi")
SERVICE_SUFFIXES = ("_pb2_grpc.py", "_pb2_grpc.pyi")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Generate the Python code of the contract.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where to (default: %(default)s)")
    out: Path = parser.parse_args().out
    protos = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        generated = generate(protos, Path(scratch))
    changed = write(generated, out)
    removed = remove_stale({path.parts[0] for path in protos}, set(generated), out)
    print(f"{len(protos)} protos give {len(generated)} files in {out}: {changed} changed, {removed} stale ones removed")


def generate(protos: list[Path], scratch: Path) -> dict[Path, bytes]:
    """Return what the protos generate, by path; `protos` and the result are relative to their roots.

    Exit where a plugin is not installed or protoc finds fault with a proto.
    """
    descriptors = scratch / "descriptors.bin"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",  # adds the folder of the well-known types by itself
        f"--proto_path={PROTOS}",
        f"--plugin={plugin('protoc-gen-mypy')}",
        f"--plugin={plugin('protoc-gen-mypy_grpc')}",
        f"--python_out={scratch}",
        f"--grpc_python_out={scratch}",
        f"--mypy_out=quiet:{scratch}",
        f"--mypy_grpc_out=quiet:{scratch}",
        f"--descriptor_set_out={descriptors}",
        *(path.as_posix() for path in protos),
    ]
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        sys.exit(status)
    generated = {}
    for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        # grpc_python_out writes a file also where there is no service; nobody would import it.
        suffixes = MESSAGE_SUFFIXES + SERVICE_SUFFIXES if file.service else MESSAGE_SUFFIXES
        for suffix in suffixes:
            path = Path(file.name.removesuffix(".proto") + suffix)
            generated[path] = (scratch / path).read_bytes()
    return generated


def plugin(name: str) -> str:
    """Find a plugin of protoc beside the interpreter, where pip puts it; exit where it is missing."""
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        sys.exit(f"{name} is not installed beside {sys.executable}: pip install mypy-protobuf")
    return f"{name}={found}"


def write(generated: dict[Path, bytes], out: Path) -> int:
    """Write the files that differ from what is there; return how many."""
    changed = 0
    for path, content in generated.items():
        target = out / path
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        changed += 1
    return changed


def remove_stale(packages: set[str], generated: set[Path], out: Path) -> int:
    """Remove generated files of these top-level packages that are not in `generated`; return how many."""
    stale = [
        path
        for package in packages
        for suffix in MESSAGE_SUFFIXES + SERVICE_SUFFIXES
        for path in (out / package).rglob(f"*{suffix}")
        if path.relative_to(out) not in generated
    ]
    for path in stale:
        path.unlink()
    return len(stale)


if __name__ == "__main__":
    main()
