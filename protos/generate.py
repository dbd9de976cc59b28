"""Generate the Python code of the contract: messages, gRPC stubs, and the types of both.

    python protos/generate.py [--out DIR]

For each proto of this folder this writes `_pb2.py` and `_pb2.pyi`, and where the proto defines a service also
`_pb2_grpc.py` and `_pb2_grpc.pyi`, to the same path under DIR (the folder `client` unless named). Generated files that
no proto accounts for are removed; all other files are left alone. The output depends only on the protos and on the
versions of grpcio-tools and mypy-protobuf.

What the protos say of HTTP (google.api.http) is for gateways, which read the protos, and is left out of the generated
code: so that needs grpcio and protobuf alone, and nothing for google/api.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

PROTOS = Path(__file__).resolve().parent
GATEWAYS = "google/"
DEFAULT_OUT = PROTOS.parent / "client"
MESSAGE_SUFFIXES = ("_pb2.py", "_pb2.pyi")
SERVICE_SUFFIXES = ("_pb2_grpc.py", "_pb2_grpc.pyi")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Generate the Python code of the contract.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where to (default: %(default)s)")
    out: Path = parser.parse_args().out
    paths = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    protos = [path for path in paths if not path.as_posix().startswith(GATEWAYS)]
    with tempfile.TemporaryDirectory() as scratch:
        generated = generate(protos, Path(scratch))
    changed = write(generated, out)
    removed = remove_stale({path.parts[0] for path in protos}, set(generated), out)
    print(f"{len(protos)} protos give {len(generated)} files in {out}: {changed} changed, {removed} stale ones removed")


def generate(protos: list[Path], scratch: Path) -> dict[Path, bytes]:
    """Return what the protos generate, by path; `protos` and the result are relative to their roots.

    Exit where a plugin is not installed or protoc finds fault with a proto.
    """
    names = [path.as_posix() for path in protos]
    descriptors = scratch / "descriptors.bin"
    protoc(f"--proto_path={PROTOS}", "--include_imports", "--include_source_info", f"-o{descriptors}", *names)
    files = FileDescriptorSet.FromString(descriptors.read_bytes())
    leave_gateways_out(files)
    descriptors.write_bytes(files.SerializeToString())
    protoc(
        f"--descriptor_set_in={descriptors}",
        f"--plugin={plugin('protoc-gen-mypy')}",
        f"--plugin={plugin('protoc-gen-mypy_grpc')}",
        f"--python_out={scratch}",
        f"--grpc_python_out={scratch}",
        f"--mypy_out=quiet:{scratch}",
        f"--mypy_grpc_out=quiet:{scratch}",
        *names,
    )
    generated = {}
    for file in files.file:
        if file.name not in names:
            continue
        # grpc_python_out writes a file also where there is no service; nobody would import it.
        suffixes = MESSAGE_SUFFIXES + SERVICE_SUFFIXES if file.service else MESSAGE_SUFFIXES
        for suffix in suffixes:
            path = Path(file.name.removesuffix(".proto") + suffix)
            generated[path] = (scratch / path).read_bytes()
    return generated


def protoc(*arguments: str) -> None:
    """Run protoc, which adds the folder of the well-known types by itself; exit where it finds fault."""
    status = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=False).returncode
    if status != 0:
        sys.exit(status)


def leave_gateways_out(files: FileDescriptorSet) -> None:
    """Take from the protos what is only for gateways."""
    for file in files.file:
        kept = [dependency for dependency in file.dependency if not dependency.startswith(GATEWAYS + "api/")]
        del file.dependency[:]
        file.dependency.extend(kept)
        for service in file.service:
            for method in service.method:
                # Its one option; as no code for it is loaded here, it is among the unknown fields.
                method.ClearField("options")
        for message in file.message_type:
            leave_json_names_out(message)
    ours = [file for file in files.file if not file.name.startswith(GATEWAYS + "api/")]
    del files.file[:]
    files.file.extend(ours)


def leave_json_names_out(message: DescriptorProto) -> None:
    """Take the names from a message's fields that protoc works out by itself."""
    for field in message.field:
        field.ClearField("json_name")
    for inner in message.nested_type:
        leave_json_names_out(inner)


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
