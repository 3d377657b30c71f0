"""Inference over gRPC, as tritonclient does it, and as nobody should."""
import os
import queue
import signal
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from daemon import Daemon, wait_for
from models import DOUBLE, package, session
from test_sequences import ACCUMULATOR, STATE
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException, shared_memory

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
DTYPES = {"BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
          "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
          "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
SLOW = DOUBLE + "fault delay-ms 300\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One daemon for all, and what loads a model of the reference format into it, once."""
    daemon, folder, loaded = Daemon(), tmp_path_factory.mktemp("models"), {}

    def load(name, text=DOUBLE, *options, **more):
        if name not in loaded:
            said = daemon.cli("load", package(folder, name, text, **more), *options)
            assert said.rc == 0, said
        assert loaded.setdefault(name, text) == text
    daemon.load = load
    yield daemon.start()
    daemon.close()


@pytest.fixture
def client(server):
    client = triton.InferenceServerClient("127.0.0.1:%d" % server.port)
    yield client
    client.close()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel("127.0.0.1:%d" % server.port, options=[
            ("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def tensor(name, array, dtype=None):
    dtype = dtype or next(d for d, t in DTYPES.items() if array.dtype == t)
    made = triton.InferInput(name, list(array.shape), dtype)
    made.set_data_from_numpy(array)
    return made


def four(*values, name="x"):
    return tensor(name, np.array(values, np.float32).reshape(-1, 4))


def request(model, *inputs, raw=(), **fields):
    """A message; inputs: (name, datatype, shape, contents or None)."""
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=raw, **fields)
    for name, dtype, shape, contents in inputs:
        made.inputs.add(name=name, datatype=dtype, shape=shape,
                        contents=pb.InferTensorContents(**contents) if contents else None)
    return made


def infer(channel, message, timeout=20):
    """Bytes or a message, as they are."""
    if not isinstance(message, bytes):
        message = message.SerializeToString()
    return pb.ModelInferResponse.FromString(channel.unary_unary(INFER)(message, timeout=timeout))


def refusal(channel, message, timeout=20):
    with pytest.raises(grpc.RpcError) as e:
        infer(channel, message, timeout)
    return e.value


def refused(code, call, *args, **kw):
    with pytest.raises(InferenceServerException) as e:
        call(*args, **kw)
    assert e.value.status() == "StatusCode." + code, e.value
    return e.value.message()


def test_an_answer_has_what_was_asked_for(server, client):
    server.load("double")
    answer = client.infer("double", [four(1, 2, 3, 4)], request_id="one",
                          outputs=[triton.InferRequestedOutput("y")])
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("double", "1.0.0", "one")
    assert answer.as_numpy("y").tolist() == [[3, 5, 7, 9]]
    assert client.infer("double", [four(*range(12))], model_version="1").as_numpy("y").shape == (3, 4)
    over_socket = triton.InferenceServerClient("unix:" + server.sock)
    assert over_socket.infer("double", [four(1, 1, 1, 1)]).as_numpy("y").tolist() == [[3] * 4]
    over_socket.close()
    name = session(server, "double")["id"]
    assert client.infer(name, [four(0, 0, 0, 0)]).as_numpy("y").tolist() == [[1] * 4]


def test_every_datatype_raw_and_typed(server, client, channel):
    contents = {"BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64",
                "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64",
                "FP32": "fp32", "FP64": "fp64"}
    # All in one model, of odd lengths, so that none but the first lies where it should.
    text = "xref 1\n" + "".join("input %s %s [-1]\n" % (d.lower(), d) for d in DTYPES) + "".join(
        "output o_%s %s [-1]\n" % (d.lower(), d) for d in DTYPES) + "".join(
        "o_%s = copy %s\n" % (d.lower(), d.lower()) for d in DTYPES)
    server.load("copies", text)
    values = {}
    for n, (dtype, kind) in enumerate(DTYPES.items()):
        low, high = ((0, 1) if dtype == "BOOL" else (-7.5, 7.5) if dtype.startswith("FP") else
                     (np.iinfo(kind).min, np.iinfo(kind).max))
        values[dtype] = np.array(([low, high, 0, 1, 1] * 5)[:2 * n + 1], kind)
    answer = client.infer("copies", [tensor(d.lower(), v) for d, v in values.items()])
    for dtype, value in values.items():
        got = answer.as_numpy("o_" + dtype.lower())
        assert got.dtype == value.dtype
        np.testing.assert_array_equal(got, value)
    for dtype, field in contents.items():
        model = "copy-" + dtype.lower()
        server.load(model, "xref 1\ninput x %s [-1]\noutput y %s [-1]\ny = copy x\n" % (dtype, dtype))
        value = values[dtype]
        got = infer(channel, request(model, ("x", dtype, value.shape,
                                             {field + "_contents": value.tolist()})))
        assert got.raw_output_contents[0] == value.tobytes()


def test_fields_come_in_any_order(server, channel):
    server.load("two", "xref 1\ninput a FP32 [1,4]\ninput b FP32 [1,4]\noutput y FP32 [1,4]\n"
                "y = sub a b\n")
    a, b = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    raw = pb.ModelInferRequest(raw_input_contents=[a.tobytes(), b.tobytes()]).SerializeToString()
    head = request("two", ("a", "FP32", [1, 4], None), ("b", "FP32", [1, 4], None), id="7")
    head = head.SerializeToString()
    unknown = b"\xa2\x7d\x05" + b"noise"
    for message in (head + raw, raw + head, raw[:18] + head + raw[18:],
                    unknown + raw + unknown + head + unknown):
        got = infer(channel, message)
        assert got.id == "7"
        assert np.frombuffer(got.raw_output_contents[0], np.float32).tolist() == [-1, 0, 1, 2]


def test_what_does_not_fit_is_named(server, client, channel):
    server.load("double")
    refused("NOT_FOUND", client.infer, "nobody", [four(1, 2, 3, 4)])
    refused("NOT_FOUND", client.infer, "double", [four(1, 2, 3, 4)], model_version="2.0.0")
    assert "no input \"z\"" in refused("INVALID_ARGUMENT", client.infer, "double",
                                       [four(1, 2, 3, 4, name="z")])
    assert "no output \"z\"" in refused("INVALID_ARGUMENT", client.infer, "double",
                                        [four(1, 2, 3, 4)],
                                        outputs=[triton.InferRequestedOutput("z")])
    x = ("x", "FP32", [1, 4], None)
    whole = bytes(16)
    fine = request("double", x, raw=[whole])
    for message, words in (
            (request("double", x), "its contents have 0"),
            (request("double", x, raw=[whole[:-1]]), "15 bytes where its shape needs 16"),
            (request("double", x, raw=[whole, whole]), "2 raw_input_contents for 1 inputs"),
            (request("double", x, x, raw=[whole, whole]), "\"x\" twice"),
            (request("double", ("x", "FP32", [1, 4], {"fp32_contents": [1] * 4}), raw=[whole]),
             "both contents and raw_input_contents"),
            (request("double", ("x", "FP32", [1, 4], {"int_contents": [1] * 4})), "fp32_contents"),
            (request("double", ("x", "FP32", [16, 2 ** 60 + 2], None), raw=[whole]), "more"),
            (request("double", ("x", "FP32", [-1, 4], None), raw=[whole]), "dimension 0 is -1"),
            (request("double", ("x", "FP32", [1] * 65, None), raw=[whole]), "dimensions"),
            (request("double", ("x", "FP99", [1, 4], None), raw=[whole]), "no datatype"),
            (request("double", ("x", "FP64", [1, 2], None), raw=[whole]), "type FP64"),
            (request("double", ("", "FP32", [1, 4], None), raw=[whole]), "name"),
            (request("double", *[("x%d" % i, "FP32", [1], None) for i in range(65)]), "64 inputs"),
            (request("double"), "no inputs"), (b"", "no inputs"),
            (fine.SerializeToString()[:-1], "cut off"), (b"\x3a\xff\xff\xff\xff\x7f", "cut off"),
            (b"\x0b" * 300000, "no Protocol Buffers"), (b"\x2a\x00" * 100000, "lacks its name"),
            (b"\x38\x01" + fine.SerializeToString(), "wire type")):
        e = refusal(channel, message)
        assert e.code() == grpc.StatusCode.INVALID_ARGUMENT and words in e.details(), (words, e)
    for name in ("../x", "a/b", "%2e%2e", "x" * 300, " ", "", "a\0b", "é", "double "):
        e = refusal(channel, request(name, x, raw=[whole]))
        assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), name
    assert infer(channel, fine).model_name == "double"


def test_parameters(server, client, channel):
    server.load("double")
    for priority in (1, 2, 3, 99):
        client.infer("double", [four(1, 2, 3, 4)], priority=priority, timeout=10 ** 7,
                     parameters={"whatever": "text", "n": 3, "f": 0.5, "b": True})
    message = request("double", ("x", "FP32", [1, 4], None), raw=[bytes(16)])
    message.parameters["priority"].string_param = "high"
    assert "\"priority\" must be a whole number" in refusal(channel, message).details()


def test_sequences(server, client):
    server.load("sum", ACCUMULATOR, model=STATE)

    def add(value, sequence, start=False, end=False):
        x = tensor("x", np.array([[value]], np.float32))
        return client.infer("sum", [x], sequence_id=sequence, sequence_start=start,
                            sequence_end=end).as_numpy("y").item()
    assert add(1, 7, start=True) == 1
    assert add(10, "seven", start=True) == 10
    assert add(2, 7) == 3
    assert add(5, "seven", end=True) == 15
    refused("ABORTED", add, 1, "seven")
    assert add(4, 7, end=True) == 7


def test_a_deadline_passes_and_a_client_leaves(server, client, channel):
    server.load("slow-alone", SLOW, "--instances", "1")
    refused("DEADLINE_EXCEEDED", client.infer, "slow-alone", [four(1, 2, 3, 4)], client_timeout=0.05)
    # By the request's own parameter it is the server that says so.
    blocker = client.async_infer("slow-alone", [four(1, 2, 3, 4)], callback=lambda result, error: None)
    refused("DEADLINE_EXCEEDED", client.infer, "slow-alone", [four(1, 2, 3, 4)], timeout=50000)
    # Cancelled while it waits, and while it runs: those behind it are answered.
    calls = [channel.unary_unary(INFER).future(
        request("slow-alone", ("x", "FP32", [1, 4], None), raw=[bytes(16)]).SerializeToString(), timeout=20)
        for _ in range(4)]
    time.sleep(0.1)
    for call in calls[:3]:
        call.cancel()
    assert pb.ModelInferResponse.FromString(calls[3].result()).model_name == "slow-alone"
    assert blocker is not None
    wait_for(lambda: session(server, "slow-alone")["queued"] == 0, 10, "the queue")


def test_a_stream(server, client):
    server.load("double")
    got = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    for i in range(100):  # more than are taken at once
        client.async_stream_infer("double", [four(i, i, i, i)], request_id=str(i))
    answers = [got.get(timeout=20) for _ in range(100)]
    assert not [e for _, e in answers if e]
    assert {r.get_response().id: r.as_numpy("y")[0, 0] for r, _ in answers} == {
        str(i): 2 * i + 1 for i in range(100)}
    # An error is a message of the stream, which goes on.
    client.async_stream_infer("nobody", [four(1, 2, 3, 4)], request_id="bad")
    result, error = got.get(timeout=20)
    assert result is None and "nobody" in error.message()
    # Whoever asks for it is told when no more answers to a request come.
    client.async_stream_infer("double", [four(1, 2, 3, 4)], request_id="last",
                              enable_empty_final_response=True)
    answers = [got.get(timeout=20)[0] for _ in range(2)]
    finals = [r.get_response().parameters["triton_final_response"].bool_param for r in answers]
    assert finals == [False, True]
    assert answers[0].as_numpy("y") is not None and not answers[1].get_response().outputs
    assert answers[1].get_response().id == "last"
    client.stop_stream()


def test_answers_of_a_stream_come_as_they_are_ready(server, client):
    server.load("slow", SLOW)
    server.load("double")
    got = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    client.async_stream_infer("slow", [four(1, 2, 3, 4)], request_id="slow")
    client.async_stream_infer("double", [four(1, 2, 3, 4)], request_id="fast")
    order = [got.get(timeout=20)[0].get_response().id for _ in range(2)]
    assert order == ["fast", "slow"]
    client.stop_stream()


def test_a_stream_that_is_given_up_takes_nothing_with_it(server, client, channel):
    server.load("slow", SLOW)
    message = request("slow", ("x", "FP32", [1, 4], None), raw=[bytes(16)]).SerializeToString()
    for leave_after in (0, 0.05, 0.35):
        stop = threading.Event()
        def messages():
            for _ in range(5):
                yield message
            stop.wait(20)
        call = channel.stream_stream(STREAM)(messages(), timeout=20)
        time.sleep(leave_after)
        call.cancel()
        stop.set()
    wait_for(lambda: session(server, "slow")["queued"] == 0, 20, "the queue")
    # A broken message is an error of its own; what is no frame at all ends the stream.
    good = [message, b"\x0b\x0c", message]
    answers = list(channel.stream_stream(STREAM)(iter(good), timeout=20))
    answers = [pb.ModelStreamInferResponse.FromString(a) for a in answers]
    assert sorted(bool(a.error_message) for a in answers) == [False, False, True]


def test_a_client_that_dies_and_one_that_never_reads(server, client, channel):
    server.load("double")
    frame = np.ones((4096, 4), np.float32)
    pid = os.fork()
    if pid == 0:  # sends without end, reads nothing, and dies of it
        signal.alarm(10)
        os.execv("/usr/bin/python3", ["python3", "-c", FLOOD, str(server.port)])
    time.sleep(1.5)
    answer = client.infer("double", [tensor("x", frame)])
    assert (answer.as_numpy("y") == 3).all()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (client.infer("double", [tensor("x", frame)]).as_numpy("y") == 3).all()


# A stream's flood over a socket by hand: preface, SETTINGS with a window of 0, HEADERS, DATA.
FLOOD = r"""
import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def frame(kind, flags, stream, body):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
def text(b):
    return bytes([len(b)]) + b
def line(name, value):
    return b"\0" + text(name) + text(value)
head = b"\x83\x86" + line(b":path", b"/inference.GRPCInferenceService/ModelStreamInfer")
head += line(b":authority", b"127.0.0.1") + line(b"content-type", b"application/grpc")
head += line(b"te", b"trailers")
raw = bytes(8192)
x = b"\x0a\x01x\x12\x04FP32\x1a\x03\x80\x04\x04"
m = b"\x0a\x06double\x2a" + text(x) + b"\x3a\x80\x40" + raw
data = b"\0" + struct.pack(">I", len(m)) + m
s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0))
          + frame(1, 4, 1, head))
while True:
    s.sendall(frame(0, 0, 1, data))
"""


@pytest.fixture
def region(request):
    """A region of 4096 bytes that lives as long as the test; its name and key are the test's."""
    name = "xi-%d-%s" % (os.getpid(), request.node.name)
    handle = shared_memory.create_shared_memory_region(name, "/" + name, 4096)
    yield name, "/" + name, handle
    shared_memory.destroy_shared_memory_region(handle)


def test_tensors_stay_in_memory_that_the_client_owns(server, client, region):
    server.load("double")
    server.load("copy-i64", "xref 1\ninput x INT64 [-1]\noutput y INT64 [-1]\ny = copy x\n")
    server.load("both", "xref 1\ninput a INT64 [1]\ninput b FP32 [2]\noutput y FP32 [2]\n"
                "output z INT64 [1]\ny = copy b\nz = copy a\n")
    name, key, handle = region
    client.register_system_shared_memory(name, key, 4000, offset=96)
    status = client.get_system_shared_memory_status().regions
    assert (status[name].key, status[name].offset, status[name].byte_size) == (key, 96, 4000)
    refused("ALREADY_EXISTS", client.register_system_shared_memory, name, key, 4000)

    x, y = triton.InferInput("x", [1, 4], "FP32"), triton.InferRequestedOutput("y")
    shared_memory.set_shared_memory_region(handle, [np.arange(4, dtype=np.float32)], offset=96)
    x.set_shared_memory(name, 16)
    assert client.infer("double", [x]).as_numpy("y").tolist() == [[1, 3, 5, 7]]
    y.set_shared_memory(name, 16, offset=1024)
    answer = client.infer("double", [x], outputs=[y]).get_response()
    assert answer.outputs[0].parameters["shared_memory_region"].string_param == name
    assert answer.outputs[0].parameters["shared_memory_byte_size"].int64_param == 16
    assert not any(answer.raw_output_contents)
    got = shared_memory.get_contents_as_numpy(handle, np.float32, [1, 4], offset=96 + 1024)
    assert got.tolist() == [[1, 3, 5, 7]]

    # Whole numbers are copied out of it first; beside tensors that come in the message, too.
    shared_memory.set_shared_memory_region(handle, [np.array([7, -7], np.int64)], offset=96)
    x = triton.InferInput("x", [2], "INT64")
    x.set_shared_memory(name, 16)
    assert client.infer("copy-i64", [x]).as_numpy("y").tolist() == [7, -7]
    a = triton.InferInput("a", [1], "INT64")
    a.set_shared_memory(name, 8)
    answer = client.infer("both", [a, tensor("b", np.array([1, 2], np.float32))])
    assert answer.as_numpy("y").tolist() == [1, 2]
    assert answer.as_numpy("z").tolist() == [7]

    x.set_shared_memory(name, 16, offset=3990)
    refused("INVALID_ARGUMENT", client.infer, "copy-i64", [x])
    x.set_shared_memory(name, 24)
    refused("INVALID_ARGUMENT", client.infer, "copy-i64", [x])
    x.set_shared_memory(name, 16, offset=2 ** 63 - 8)
    refused("INVALID_ARGUMENT", client.infer, "copy-i64", [x])
    client.unregister_system_shared_memory(name)
    refused("NOT_FOUND", client.get_system_shared_memory_status, name)
    x.set_shared_memory(name, 16)
    refused("NOT_FOUND", client.infer, "copy-i64", [x])
    client.unregister_system_shared_memory()  # as the protocol's own examples begin
    client.unregister_cuda_shared_memory()
    assert not client.get_cuda_shared_memory_status().regions
    refused("UNIMPLEMENTED", client.register_cuda_shared_memory, "cuda", b"aGFuZGxl", 0, 16)


def test_sizes(new_daemon, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"grpc_message": "2MiB", "input_memory": "64MiB"}')
    daemon = new_daemon("--config", config).start()
    assert daemon.cli("load", package(tmp_path, "double", DOUBLE)).rc == 0
    client = triton.InferenceServerClient("127.0.0.1:%d" % daemon.port)
    most = np.ones(((2 << 20) // 16 - 64, 4), np.float32)
    assert (client.infer("double", [tensor("x", most)]).as_numpy("y") == 3).all()
    for more in (65536, 1 << 20):
        too_large = np.ones((len(most) + more, 4), np.float32)
        message = refused("RESOURCE_EXHAUSTED", client.infer, "double", [tensor("x", too_large)])
        assert "at most 2097152" in message
    got = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    client.async_stream_infer("double", [tensor("x", too_large)])
    assert got.get(timeout=20)[1].status() == "StatusCode.RESOURCE_EXHAUSTED"
    client.stop_stream()
    client.close()


def test_a_frame_of_video_is_exact(server, client):
    server.load("frame", "xref 1\ninput x UINT8 [1,2160,3840,3]\noutput y UINT8 [1,2160,3840,3]\n"
                "y = copy x\n")
    frame = np.random.default_rng(7).integers(0, 256, (1, 2160, 3840, 3), np.uint8)
    np.testing.assert_array_equal(client.infer("frame", [tensor("x", frame)]).as_numpy("y"), frame)
    metrics = server.get("/metrics").body.decode()
    copied = [l for l in metrics.splitlines() if l.startswith("xinfer_copied_bytes_total")
              and "frame" in l]
    assert 0 < int(copied[0].split()[-1]) < 0.25 * frame.nbytes  # what came with heads of frames


def test_many_at_once(server):
    server.load("double")
    failures = []
    def work(n):
        client = triton.InferenceServerClient("127.0.0.1:%d" % server.port)
        for i in range(50):
            y = client.infer("double", [four(n, i, 0, 0)]).as_numpy("y").tolist()
            if y != [[2 * n + 1, 2 * i + 1, 1, 1]]:
                failures.append((n, i, y))
        client.close()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_a_model_that_sleeps_is_woken(server, client):
    server.load("lazy", DOUBLE, "--lazy")
    assert client.infer("lazy", [four(1, 2, 3, 4)]).as_numpy("y").tolist() == [[3, 5, 7, 9]]


def test_several_of_a_stream_wake_a_model(server, channel):
    """Some are read by a worker first, so that they meet at the door of a model that sleeps."""
    server.load("asleep", DOUBLE, "--lazy")
    rows = 300000
    large = request("asleep", ("x", "FP32", [rows, 4], {"fp32_contents": [1.5] * (4 * rows)}))
    small = request("asleep", ("x", "FP32", [1, 4], None), raw=[bytes(16)])
    messages = [m.SerializeToString() for m in (large, small, large)]
    answers = [pb.ModelStreamInferResponse.FromString(a)
               for a in channel.stream_stream(STREAM)(iter(messages), timeout=20)]
    assert [a.error_message for a in answers] == [""] * 3
    assert sorted(len(a.infer_response.raw_output_contents[0]) for a in answers) == [16] + 2 * [16 * rows]
