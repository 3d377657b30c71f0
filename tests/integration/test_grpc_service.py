"""gRPC but for inference: health, reflection, what is refused. Driven by the reference clients."""
import hashlib
import json
import socket
import struct
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from daemon import Daemon
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)
from models import DOUBLE, package
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

OIP = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def server():
    daemon = Daemon()
    yield daemon.start()
    daemon.close()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel("127.0.0.1:%d" % server.port) as channel:
        yield channel


def call(channel, path, message=b"", **kw):
    """A call with bytes as they are; returns the answer's bytes."""
    return channel.unary_unary(path)(message, timeout=20, **kw)


def refusal(channel, path, message=b"", **kw):
    with pytest.raises(grpc.RpcError) as e:
        call(channel, path, message, **kw)
    return e.value


def test_a_server_is_live_and_ready_on_tcp_and_on_its_socket(server):
    for address in ("127.0.0.1:%d" % server.port, "unix:" + server.sock):
        client = triton.InferenceServerClient(address)
        assert client.is_server_live()
        assert client.is_server_ready()
        client.close()


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as e:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    assert e.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched(daemon):
    channel = grpc.insecure_channel("127.0.0.1:%d" % daemon.port)
    stub = health_pb2_grpc.HealthStub(channel)
    of_nobody = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(of_nobody).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    of_server = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(of_server).status == health_pb2.HealthCheckResponse.SERVING
    of_nobody.cancel()
    ending = threading.Thread(target=daemon.stop)  # waits for nobody who only watches
    ending.start()
    with pytest.raises(grpc.RpcError) as e:
        while True:
            assert next(of_server).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    ending.join(20)
    assert not ending.is_alive()
    channel.close()


def test_reflection_finds_everything(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert sorted(database.get_services()) == [
        "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService"]
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    assert len(service.methods) == 20
    for name in ("inference.ModelInferRequest.InferInputTensor",
                 "inference.ModelInferRequest.InferInputTensor.ParametersEntry",
                 "grpc.health.v1.HealthCheckResponse"):
        assert pool.FindMessageTypeByName(name).full_name == name
    kinds = pool.FindEnumTypeByName("inference.ModelInstanceGroup.Kind")
    assert [v.name for v in kinds.values] == ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]


def test_reflection_answers_each_question(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(host="h", file_by_filename="health.proto"),
             reflection_pb2.ServerReflectionRequest(file_by_filename="nobody.proto"),
             reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="a.B"),
             reflection_pb2.ServerReflectionRequest()]
    answers = list(stub.ServerReflectionInfo(iter(asked), timeout=20))
    assert [a.original_request for a in answers] == asked
    assert answers[0].valid_host == "h"
    assert [a.error_response.error_code for a in answers] == [0, 5, 5, 12]
    # A method's name leads to its file; a name that only begins like one leads nowhere.
    known = ["grpc.health.v1.Health.Check", "inference.GRPCInferenceService.ModelInfer",
             "inference.ModelInferRequest", "inference.ModelInstanceGroup.Kind",
             "inference.DataType"]
    unknown = ["inference", "inference.", "inference.Model", "inference.DataTypeX", "x" * 255, "",
               "inference.ModelInferRequest.Nobody", "nobody.ModelInferRequest", "." * 255]
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=s)
             for s in known + unknown]
    for symbol, answer in zip(known + unknown, stub.ServerReflectionInfo(iter(asked), timeout=20)):
        assert answer.WhichOneof("message_response") == (
            "file_descriptor_response" if symbol in known else "error_response"), symbol


def fields(message, pool_of):
    """name → what a client must agree on, of all messages in it."""
    found = {}
    for m in message:
        for f in m.field:
            oneof = m.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else ""
            found[pool_of + m.name + "." + f.name] = (
                f.number, f.label, f.type, f.type_name, oneof)
        for e in m.enum_type:
            found[pool_of + m.name + "." + e.name] = [(v.name, v.number) for v in e.value]
        found[pool_of + m.name] = m.options.map_entry
        found.update(fields(m.nested_type, pool_of + m.name + "."))
    return found


def described(module):
    proto = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(proto)
    return proto


def test_our_proto_is_the_protocols(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    ours = database.FindFileByName("grpc_service.proto")
    theirs = described(service_pb2)
    assert fields(ours.message_type, "") == fields(theirs.message_type, "")
    assert [(m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming)
            for m in ours.service[0].method] == [
           (m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming)
            for m in theirs.service[0].method]
    config = database.FindFileByName("model_config.proto")
    theirs = fields(described(model_config_pb2).message_type, "")
    for name, field in fields(config.message_type, "").items():  # those that we fill in
        assert theirs[name] == field, name


@pytest.mark.parametrize("message", [
    b"\x0a", b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x08\x01", b"\x0b\x0c",
    b"\x0a\x02\xff\xfe", b"\x0a\x81\x02" + b"x" * 257, b"\x0a\x03a\0b", b"\x0b" * 100000,
], ids=["tag", "cut", "huge", "type", "group", "utf-8", "long", "nul", "deep"])
def test_a_broken_message_is_named(channel, message):
    e = refusal(channel, "/grpc.health.v1.Health/Check", message)
    assert e.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert ("xinfer-code", "XI-0101") in e.trailing_metadata()
    assert call(channel, OIP + "ServerLive") == b"\x08\x01"


def test_the_repository(server, tmp_path):
    client = triton.InferenceServerClient("127.0.0.1:%d" % server.port)
    said = server.cli("load", package(tmp_path, "double", DOUBLE))
    assert said.rc == 0, said
    def index():
        return {(m.name, m.version): (m.state, m.reason)
                for m in client.get_model_repository_index().models}
    assert index()["double", "1.0.0"] == ("READY", "")
    client.unload_model("double")
    assert index()["double", "1.0.0"] == ("UNAVAILABLE", "not loaded")
    assert "double" not in [m.name for m in client.get_model_repository_index().models
                            if m.state == "READY"]
    client.load_model("double")
    assert index()["double", "1.0.0"][0] == "READY"
    client.load_model("double:1.0.0")  # again, by its version: nothing changes
    for code, action, *args in (("NOT_FOUND", client.load_model, "nobody"),
                                ("NOT_FOUND", client.unload_model, "nobody"),
                                ("INVALID_ARGUMENT", client.load_model, "../x"),
                                ("INVALID_ARGUMENT", client.unload_model, ""),
                                ("UNIMPLEMENTED", client.load_model, "double", None, "{}")):
        with pytest.raises(InferenceServerException) as e:
            action(*args)
        assert e.value.status() == "StatusCode." + code, e.value
    client.close()


@pytest.fixture
def client(server, tmp_path):
    client = triton.InferenceServerClient("127.0.0.1:%d" % server.port)
    if not client.is_model_ready("batched"):
        assert server.cli("load", package(tmp_path, "batched", DOUBLE), "--max-batch", "4").rc == 0
    yield client
    client.close()


def refused(code, action, *args, **kw):
    with pytest.raises(InferenceServerException) as e:
        action(*args, **kw)
    assert e.value.status() == "StatusCode." + code, e.value
    return e.value.message()


def test_what_server_and_model_say_of_themselves(server, client):
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("xinfer", server.cli("--version").stdout.split()[1])
    assert {"statistics", "system_shared_memory", "model_configuration"} <= set(metadata.extensions)

    assert client.is_model_ready("batched") and client.is_model_ready("batched", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("batched", "9")
    for ask in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        refused("NOT_FOUND", ask, "nobody")
        refused("NOT_FOUND", ask, "batched", "9")
        refused("INVALID_ARGUMENT", ask, "x" * 300)

    facts = server.get("/v1/models/batched").json()
    metadata = client.get_model_metadata("batched")
    assert (metadata.name, metadata.platform) == ("batched", facts["engine"])
    assert list(metadata.versions) == [facts["version"]]
    for ports, name in ((metadata.inputs, "x"), (metadata.outputs, "y")):
        assert [(p.name, p.datatype, list(p.shape)) for p in ports] == [(name, "FP32", [-1, 4])]

    config = client.get_model_config("batched").config
    assert (config.name, config.backend, config.max_batch_size) == ("batched", facts["engine"], 4)
    for ports, name in ((config.input, "x"), (config.output, "y")):  # rows are not said
        assert [(p.name, p.data_type, list(p.dims)) for p in ports] == [
            (name, model_config_pb2.TYPE_FP32, [4])]
    assert config.HasField("dynamic_batching")
    group = config.instance_group[0]
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_CPU,
                                         facts["instances"])


def test_statistics_count(server, client):
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.zeros((1, 4), np.float32))
    before = client.get_inference_statistics("batched").model_stats[0]
    for _ in range(3):
        client.infer("batched", [x])
    after = client.get_inference_statistics("batched", "1.0.0").model_stats[0]
    assert after.inference_count == before.inference_count + 3
    assert after.execution_count == before.execution_count + 3
    assert after.inference_stats.success.count == before.inference_stats.success.count + 3
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert after.inference_stats.queue.count == after.inference_stats.compute_infer.count
    assert after.last_inference > 1600000000000
    assert "batched" in [m.name for m in client.get_inference_statistics().model_stats]


def test_settings(server, client):
    log = client.get_log_settings(as_json=True)["settings"]
    assert log["log_info"]["bool_param"] and "log_verbose_level" in log
    assert "debug" not in server.get("/v1/control/configure").body.decode()
    log = client.update_log_settings({"log_verbose_level": 1}, as_json=True)["settings"]
    assert log["log_verbose_level"]["uint32_param"] == 1
    assert server.get("/v1/control/configure").json()["log_level"] == "debug"
    client.update_log_settings({"log_verbose_level": 0})
    refused("UNIMPLEMENTED", client.update_log_settings, {"log_file": "/etc/passwd"})
    refused("UNIMPLEMENTED", client.update_log_settings, {"log_error": False})
    trace = client.get_trace_settings(as_json=True)["settings"]
    assert trace["trace_level"]["value"] == ["OFF"]
    client.update_trace_settings(settings={"trace_level": None})
    refused("UNIMPLEMENTED", client.update_trace_settings, settings={"trace_level": ["TIMESTAMPS"]})
    refused("INVALID_ARGUMENT", client.update_trace_settings, settings={"nonsense": "1"})


def test_what_is_not_there_is_unimplemented(channel):
    for path in (OIP + "ModelNothing", OIP, "/inference.Nobody/ServerLive", "/a/b"):
        assert refusal(channel, path).code() == grpc.StatusCode.UNIMPLEMENTED
    e = refusal(channel, OIP + "CudaSharedMemoryRegister")
    assert e.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "system shared memory is" in e.details()


class Raw:
    """One HTTP/2 connection by hand, with one gRPC request under way."""
    def __init__(self, server, path, more=b""):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = b"\x83\x86" + self.line(b":path", path) + self.line(b":authority", b"127.0.0.1")
        head += self.line(b"content-type", b"application/grpc") + more
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b"")
                            + self.frame(1, 4, 1, head))

    @staticmethod
    def line(name, value):
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    @staticmethod
    def frame(kind, flags, stream, body):
        return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(
            ">I", stream) + body

    def send(self, body, end=False):
        self.socket.sendall(self.frame(0, int(end), 1, body))

    def answer(self):
        """(kind, flags) of the stream's frames up to the one that ends it."""
        seen, file = [], self.socket.makefile("rb")
        while not seen or not (seen[-1][1] & 1 or seen[-1][0] == 3):
            head = file.read(9)
            assert len(head) == 9, seen
            file.read(int.from_bytes(head[:3], "big"))
            if head[5:] == b"\0\0\0\1":
                seen.append((head[3], head[4]))
        self.socket.close()
        return seen


@pytest.mark.parametrize("method", [b"ServerLive", b"ModelInfer", b"ModelStreamInfer"])
@pytest.mark.parametrize("body", [
    b"", b"\0", b"\0\0\0\0\x05abc", b"\2\0\0\0\0", b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff",
    b"\0\0\0\0\1" + b"\x0b", b"\0\0\0\0\0" * 100, b"\0\0\0\0\0\0\0\0\0",
], ids=["nothing", "cut-frame", "cut-message", "flags", "compressed", "huge", "group", "many", "half"])
def test_frames_that_are_none(server, method, body):
    """Each is answered with trailers at once, byte by byte, too, and nothing else suffers."""
    path = OIP.encode() + method
    whole = Raw(server, path)
    whole.send(body, end=True)
    seen = whole.answer()
    assert seen[-1][0] == 1 and seen[-1][1] & 5 == 5, seen  # HEADERS that end the stream
    pieces = Raw(server, path)
    for i in range(len(body)):
        pieces.send(body[i:i + 1])
    pieces.send(b"", end=True)
    assert [kind for kind, _ in pieces.answer()][-1] in (1, 3)
    assert server.get("/v1/health/live").status == 200


@pytest.mark.parametrize("timeout, code", [(b"1x", 1), (b"", 1), (b"123456789S", 1), (b"0n", 1)])
def test_deadlines_that_are_none(server, timeout, code):
    raw = Raw(server, OIP.encode() + b"ServerLive", Raw.line(b"grpc-timeout", timeout))
    raw.send(b"\0\0\0\0\0", end=True)
    assert raw.answer()[-1][0] == code


def test_sizes_and_compression(channel):
    e = refusal(channel, OIP + "ServerLive", b"\x12\x80\x80\x40" + bytes(1 << 20))
    assert e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    e = refusal(channel, OIP + "ServerLive", b"\x12\x04abcd" * 100, compression=grpc.Compression.Gzip)
    assert e.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "only identity is taken" in e.details()


def test_a_method_wants_its_role(new_daemon, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("%s acme infer\n" % hashlib.sha256(b"secret").hexdigest())
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"token_file": str(tokens)}))
    guarded = new_daemon("--config", config).start(ready=False)
    with grpc.insecure_channel("127.0.0.1:%d" % guarded.port) as channel:
        for metadata, code in ((None, "UNAUTHENTICATED"),
                               ([("authorization", "Bearer wrong")], "UNAUTHENTICATED"),
                               ([("authorization", "Bearer secret")], "UNIMPLEMENTED")):
            e = refusal(channel, OIP + "CudaSharedMemoryRegister", metadata=metadata)
            assert e.code() == getattr(grpc.StatusCode, code)


def test_grpc_is_not_for_everybody(server, channel):
    e = refusal(channel, OIP + "ServerLive", metadata=[("origin", "http://evil.example")])
    assert e.code() == grpc.StatusCode.PERMISSION_DENIED
    # HTTP/1.1 cannot carry it, and says so in its own words.
    answer = server.post(OIP + "ServerLive", b"\0\0\0\0\0", headers={"Content-Type": "application/grpc"})
    assert answer.status == 415
    assert "HTTP/2" in answer.json()["detail"]
