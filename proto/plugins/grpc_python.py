"""A protoc plugin that gives buf the gRPC stub generator of grpcio-tools, which exists only inside its protoc."""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> None:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        descriptors, out = Path(folder, "descriptors.binpb"), Path(folder, "out")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out.mkdir()
        arguments = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}"]
        status = protoc.main(["protoc", *arguments, *request.file_to_generate])
        if status:
            response.error = f"grpc_tools.protoc ended with status {status}"
        for path in sorted(out.rglob("*_pb2_grpc.py")):
            if "add_" in (content := path.read_text()):  # files without a service give empty stubs
                response.file.add(name=str(path.relative_to(out)), content=content)
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
