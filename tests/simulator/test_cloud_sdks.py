"""The clouds' own SDKs and the simulated provider's clouds agree, and native strategies sign as botocore does."""

from __future__ import annotations

import datetime
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from batch_llm import llm, process_prompts
from batch_llm.testing import Fault, SimulatedClouds, SimulatedProvider

KEY = (Path(__file__).parents[2] / "src" / "providers" / "auth" / "testing_key.txt").read_text(encoding="ascii")
NOVA, CLAUDE = "amazon.nova-pro-v1:0", "us.anthropic.claude-opus-5-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12"
HELLO: Any = [{"role": "user", "content": [{"text": "Hello"}]}]
pytestmark = pytest.mark.usefixtures("no_clouds")


@pytest.fixture
def metadata(monkeypatch):
    """What google-auth reads from the environment when it is imported."""

    def at(provider: SimulatedProvider) -> None:
        module = pytest.importorskip("google.auth.compute_engine._metadata")
        host = provider.url.partition("://")[2]
        for name, value in (
            ("_GCE_METADATA_HOST", host),
            ("_METADATA_ROOT", f"http://{host}/computeMetadata/v1/"),
            ("_METADATA_IP_ROOT", f"http://{host}"),
        ):
            monkeypatch.setattr(module, name, value, raising=False)

    return at


async def native(model: str, **options: Any) -> str:
    return (await llm(model, **options).execute("Hello", 1, 30.0))[0]


def bedrock(**config: Any) -> Any:
    boto3 = pytest.importorskip("boto3")
    botocore = pytest.importorskip("botocore.config")
    retries = {"total_max_attempts": 1}
    return boto3.Session().client("bedrock-runtime", config=botocore.Config(retries=retries, **config))


# AWS


@pytest.mark.parametrize("source", ["aws", "aws_machine", "aws_container"])
@pytest.mark.parametrize("model", [NOVA, ARN])
async def test_boto3_converses(source, model, use):
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment(source))
        client = bedrock()
        whole = client.converse(modelId=model, messages=HELLO, inferenceConfig={"maxTokens": 100})
        text = whole["output"]["message"]["content"][0]["text"]
        parts = list(client.converse_stream(modelId=model, messages=HELLO)["stream"])
        assert provider.stats.clouds.rejected == {}
        assert text == await native(f"bedrock:{model}") == await native(f"bedrock:{model}", stream=True)
    streamed = "".join(part["contentBlockDelta"]["delta"]["text"] for part in parts if "contentBlockDelta" in part)
    assert streamed == text
    assert parts[-1]["metadata"]["usage"] == whole["usage"]


@pytest.mark.parametrize("model", [NOVA, CLAUDE])
async def test_boto3_counts_tokens_as_estimates_do(model, use):
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
    converse = {"converse": {"messages": HELLO}}
    asked = converse if model == NOVA else {"invokeModel": {"body": json.dumps(body).encode()}}
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("aws"))
        counted = bedrock().count_tokens(modelId=model, input=asked)["inputTokens"]
        batch = await process_prompts(f"bedrock:{model}", ["Hello"], dry_run="sample")
        assert provider.stats.clouds.rejected == {}
    assert batch.estimate.counted_by == "bedrock's endpoint that counts tokens, all prompts"
    assert batch.estimate.input_tokens.expected == pytest.approx(counted)


async def test_boto3_calls_claude(use):
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("aws"))
        client = bedrock()
        whole = json.loads(client.invoke_model(modelId=CLAUDE, body=json.dumps(body))["body"].read())
        stream = client.invoke_model_with_response_stream(modelId=CLAUDE, body=json.dumps(body))["body"]
        events = [json.loads(event["chunk"]["bytes"]) for event in stream]
        assert whole["content"][0]["text"] == await native(f"bedrock:{CLAUDE}")
    assert events[-1]["type"] == "message_stop"


def test_boto3_reads_errors(use):
    pytest.importorskip("boto3")
    from botocore.eventstream import ChecksumMismatch
    from botocore.exceptions import ClientError, EventStreamError

    faults = [Fault("checksum", on=[1]), Fault("stream_error", on=[2]), Fault(429, on=[3])]
    with SimulatedProvider(clouds=True, faults=faults) as provider:
        use(provider.cloud_environment("aws"))
        client = bedrock()
        for error in (ChecksumMismatch, EventStreamError):
            stream = client.converse_stream(modelId=NOVA, messages=HELLO)["stream"]
            with pytest.raises(error) as caught:
                list(stream)
            stream.close()
        assert "serviceUnavailableException" in str(caught.value)
        with pytest.raises(ClientError) as caught:
            client.converse(modelId=NOVA, messages=HELLO)
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
        with pytest.raises(ClientError) as caught:
            client.converse(modelId=NOVA, messages=[*HELLO, *HELLO])
        assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "InvalidSignatureException"),
        ({"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, "UnrecognizedClientException"),
    ],
)
def test_boto3_is_rejected(variables, code, use):
    pytest.importorskip("boto3")
    from botocore.exceptions import ClientError

    with SimulatedProvider(clouds=True) as provider:
        use({**provider.cloud_environment("aws"), **variables})
        with pytest.raises(ClientError) as caught:
            bedrock().converse(modelId=NOVA, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == code


def test_boto3_is_late(use):
    pytest.importorskip("boto3")
    from botocore.exceptions import ClientError

    with SimulatedProvider(clouds=SimulatedClouds(clock_ahead=600)) as provider:
        use(provider.cloud_environment("aws"))
        with pytest.raises(ClientError, match="Signature expired"):
            bedrock().converse(modelId=NOVA, messages=HELLO)


def test_boto3_assumes_roles(use, tmp_path):
    with SimulatedProvider(clouds=True) as provider:
        fixed = provider.cloud_environment("aws")
        key, secret = fixed.pop("AWS_ACCESS_KEY_ID"), fixed.pop("AWS_SECRET_ACCESS_KEY")
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text(
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n", encoding="ascii"
        )
        (tmp_path / ".aws" / "config").write_text(
            "[profile role]\nsource_profile = default\nrole_arn = arn:aws:iam::1:role/r\n", encoding="ascii"
        )
        use({**fixed, "AWS_PROFILE": "role"})
        assert bedrock().converse(modelId=NOVA, messages=HELLO)
        assert provider.stats.clouds.issued == {"aws_role": 1}


class Recorder(BaseHTTPRequestHandler):
    """Keeps requests, and answers each with the same reply of Converse."""

    requests: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        message = {"role": "assistant", "content": [{"text": "Hi"}]}
        usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
        reply = json.dumps({"output": {"message": message}, "stopReason": "end_turn", "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("session", [None, "AQoD/session+token=="])
@pytest.mark.parametrize("model", [NOVA, ARN, "m with blanks+plus~(x)"])
async def test_signatures_are_those_of_botocore(model, session, use, monkeypatch):
    """What a native strategy has sent is signed again by botocore, at the same time."""
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    requests: list[Any] = []
    handler = type("Handler", (Recorder,), {"requests": requests})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        use({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url})
        use({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"})
        if session is not None:
            use({"AWS_SESSION_TOKEN": session})
        for prompt in ("Hello", "caf\u00e9 \U0001f600", "x" * 40_000):
            await llm(f"bedrock:{model}").execute(prompt, 1, 30.0)
        server.shutdown()
    assert len(requests) == 3
    for path, headers, body in requests:
        at = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        monkeypatch.setattr(auth, "get_current_datetime", lambda *_, at=at, **__: at)
        request = AWSRequest("POST", url + path, {"content-type": headers["content-type"]}, body)
        keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", session)
        region = "us-east-1" if model == ARN else "eu-west-1"
        auth.SigV4Auth(keys, "bedrock", region).add_auth(request)
        assert request.headers["Authorization"] == headers["authorization"]
        assert headers.get("x-amz-security-token") == session


def google_token() -> str:
    """A token of the machine, as google-auth fetches it."""
    compute_engine = pytest.importorskip("google.auth.compute_engine")
    pytest.importorskip("requests")
    from google.auth.transport.requests import Request

    credentials = compute_engine.Credentials()
    credentials.refresh(Request())
    return credentials.token


# The anthropic SDK


def test_anthropics_bedrock_client(use):
    anthropic = pytest.importorskip("anthropic")
    pytest.importorskip("boto3")
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("aws"))
        client = anthropic.AnthropicBedrock(aws_region="us-east-1", base_url=provider.url, max_retries=0)
        messages: Any = [{"role": "user", "content": "Hello"}]
        whole = client.messages.create(model=CLAUDE, max_tokens=100, messages=messages)
        with client.messages.stream(model=CLAUDE, max_tokens=100, messages=messages) as stream:
            streamed = stream.get_final_message()
        assert provider.stats.clouds.rejected == {}
        client.close()
    assert streamed.content[0].text == whole.content[0].text
    assert whole.content[0].text.startswith("Simulated reply")


async def test_anthropics_vertex_client(use, metadata):
    anthropic = pytest.importorskip("anthropic")
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("google_machine"))
        metadata(provider)
        client = anthropic.AnthropicVertex(
            region="global", project_id="simulated", base_url=f"{provider.url}/v1", max_retries=0,
            access_token=google_token(),
        )  # fmt: skip
        messages: Any = [{"role": "user", "content": "Hello"}]
        model = "claude-opus-5@20260101"
        whole = client.messages.create(model=model, max_tokens=100, messages=messages)
        counted = client.messages.count_tokens(model=model, messages=messages)
        assert counted.input_tokens == whole.usage.input_tokens
        with client.messages.stream(model=model, max_tokens=100, messages=messages) as stream:
            streamed = stream.get_final_message()
        assert provider.stats.clouds.rejected == {}
        assert whole.content[0].text == streamed.content[0].text == await native(f"vertex:{model}")
        client.close()


# google-auth


async def test_google_auth_of_a_service_account(use, tmp_path):
    service_account = pytest.importorskip("google.oauth2.service_account")
    pytest.importorskip("requests")
    from google.auth.transport.requests import Request

    with SimulatedProvider(clouds=SimulatedClouds(busy=1)) as provider:
        info = {"type": "service_account", "client_email": "sa@p", "private_key": KEY, "private_key_id": "k",
                "project_id": "p", "token_uri": f"{provider.url}/google/token"}  # fmt: skip
        credentials = service_account.Credentials.from_service_account_info(
            info, scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )
        credentials.refresh(Request())
        assert provider.stats.clouds.issued == {"google_service_account": 1}
        use({"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_VERTEX_BASE_URL": provider.url})
        # A token that it has fetched serves as a key, and the other way round: both kinds are the same.
        assert await native("vertex:gemini-3-flash", api_key=lambda: credentials.token)
        path = tmp_path / "sa.json"
        path.write_text(json.dumps(info), encoding="utf-8")
        use({"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
        assert await native("vertex:gemini-3-flash")
        assert provider.stats.clouds.issued == {"google_service_account": 2}


# azure-identity


@pytest.mark.parametrize("kind", ["azure_machine", "azure_service"])
async def test_azure_identity_of_a_machine(kind, use):
    identity = pytest.importorskip("azure.identity")
    with SimulatedProvider(clouds=True) as provider:
        if kind == "azure_machine":
            variables = provider.cloud_environment("azure_machine")
        else:
            variables = {"IDENTITY_ENDPOINT": f"{provider.url}/azure/identity", "IDENTITY_HEADER": "0123456789abcdef"}
        use(variables)
        credential = identity.ManagedIdentityCredential()
        token = credential.get_token("https://cognitiveservices.azure.com/.default").token
        assert provider.stats.clouds.issued == {kind: 1}
        use({"AZURE_OPENAI_ENDPOINT": provider.url})
        assert await native("azure:deployment")
        assert provider.stats.clouds.issued == {kind: 2}
        assert token.startswith("simulated-token-of-azure")
        credential.close()


@pytest.mark.parametrize("proof", ["secret", "assertion"])
def test_azure_identity_of_an_application(proof, use):
    identity = pytest.importorskip("azure.identity")
    from azure.core.pipeline.transport import RequestsTransport

    with SimulatedProvider(clouds=True, tls=True) as provider:
        assert provider.ca is not None
        path = Path(os.environ["HOME"]) / "ca.pem"
        path.write_text(provider.ca, encoding="ascii")
        options: Any = {"authority": provider.url, "disable_instance_discovery": True,
                        "transport": RequestsTransport(connection_verify=str(path))}  # fmt: skip
        if proof == "secret":
            credential = identity.ClientSecretCredential("tenant", "client", "a-client-secret", **options)
        else:
            credential = identity.ClientAssertionCredential("tenant", "client", lambda: "an.asser.tion", **options)
        assert credential.get_token("https://cognitiveservices.azure.com/.default").expires_on > 0
        credential.close()
        assert provider.stats.clouds.issued == {"entra_secret" if proof == "secret" else "entra_federated": 1}
