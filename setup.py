"""Build step: the gRPC stubs are generated, never committed (generated code checks the runtime's version)."""

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PROTO_ROOT = ROOT / "proto"


def generate_stubs(destination: Path) -> None:
    """Run protoc over proto/qlog/v1, writing `qlog/v1/*_pb2*` below `destination`."""
    from grpc_tools import protoc

    spec = importlib.util.find_spec("google.longrunning")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("setup.py: the stubs need googleapis-common-protos: pip install googleapis-common-protos")
    longrunning = Path(next(iter(spec.submodule_search_locations)))
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as includes:
        # The package ships the file under another name than the one it registers in the descriptor pool.
        canonical = Path(includes) / "google" / "longrunning" / "operations.proto"
        canonical.parent.mkdir(parents=True)
        shutil.copyfile(longrunning / "operations_proto.proto", canonical)
        sources = sorted(str(path) for path in (PROTO_ROOT / "qlog" / "v1").glob("*.proto"))
        paths = [f"-I{path}" for path in (PROTO_ROOT, includes, longrunning.parent.parent, well_known)]
        outputs = [f"--{kind}_out={destination}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", *paths, *outputs, *sources]) != 0:
            sys.exit("setup.py: protoc failed, see above")


class BuildWithStubs(build_py):
    """`build_py` that adds the generated stubs; in an editable install they lie beside their sources."""

    def run(self) -> None:
        """Build, then generate into what was built."""
        super().run()
        generate_stubs(PROTO_ROOT if self.editable_mode else Path(self.build_lib))


if __name__ == "__main__":
    if sys.argv[1:] == ["proto"]:
        generate_stubs(PROTO_ROOT)
    else:
        setup(cmdclass={"build_py": BuildWithStubs})
