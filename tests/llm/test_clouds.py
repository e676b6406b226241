"""Bedrock, Vertex AI and Azure with the clouds' own credentials, against a simulated provider that checks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batch_llm import llm, process_prompts
from batch_llm._llm import row_of
from batch_llm._llm.providers import endpoint
from batch_llm.errors import ProviderError
from batch_llm.testing import Fault, SimulatedClouds, SimulatedProvider

KEY = (Path(__file__).parents[2] / "src" / "providers" / "auth" / "testing_key.txt").read_text(encoding="ascii")
NOVA, CLAUDE = "bedrock:amazon.nova-pro-v1:0", "bedrock:us.anthropic.claude-opus-5-v1:0"
pytestmark = pytest.mark.usefixtures("no_clouds")


async def ask(strategy, prompt="Hello"):
    return (await strategy.execute(prompt, 1, 30.0))[0]


SOURCES = [
    ("aws", NOVA, {}),
    ("aws", CLAUDE, {}),
    ("aws_machine", NOVA, {"aws_machine": 1}),
    ("aws_container", NOVA, {"aws_container": 1}),
    ("google_machine", "vertex:gemini-3-flash", {"google_machine": 1}),
    ("google_machine", "vertex:claude-opus-5@20260101", {"google_machine": 1}),
    ("azure", "azure:deployment", {"entra_secret": 1}),
    ("azure_machine", "azure:deployment", {"azure_machine": 1}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("source", "model", "issued"), SOURCES)
async def test_credentials_are_found_and_accepted(source, model, issued, stream, use):
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment(source))
        output = await ask(llm(model, stream=stream))
        stats = provider.stats.clouds
    assert output.startswith("Simulated reply")
    assert (stats.issued, stats.admitted, stats.rejected) == (issued, 1, {})


@pytest.mark.parametrize(("source", "model", "issued"), [one for one in SOURCES if one[2]])
async def test_a_thousand_requests_cause_one_renewal(source, model, issued, use):
    with SimulatedProvider(latency=0.01, clouds=SimulatedClouds(busy=1)) as provider:
        use(provider.cloud_environment(source))
        result = await process_prompts(llm(model), (f"prompt {n}" for n in range(1000)), concurrency=1000)
        stats = provider.stats.clouds
    assert result.failed == 0
    assert (stats.issued, stats.admitted, stats.rejected) == (issued, 1000, {})


@pytest.mark.parametrize(("source", "model"), [(one[0], one[1]) for one in SOURCES if one[2]])
async def test_credentials_that_expire_in_mid_run_fail_no_item(source, model, use):
    clouds = SimulatedClouds(token_life=2.0)
    with SimulatedProvider(latency=0.02, clouds=clouds) as provider:
        use(provider.cloud_environment(source))
        result = await process_prompts(llm(model), (f"prompt {n}" for n in range(3000)), concurrency=20)
        stats = provider.stats.clouds
    # However fast it goes: what takes longer than a life has more than one.
    assert (result.failed, result.succeeded) == (0, 3000)
    assert stats.admitted == 3000


async def test_a_token_that_is_withdrawn_is_renewed_once(use):
    """The old provider's tokens mean nothing to the new one at the same address."""
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("google_machine"))
        strategy = llm("vertex:gemini-3-flash")
        await ask(strategy)
        port = int(provider.url.rpartition(":")[2])
    with SimulatedProvider(clouds=True, port=port) as provider:
        with pytest.raises(ProviderError) as caught:
            await ask(strategy)  # younger than any token that a server would withdraw
        assert caught.value.category == "authentication"
        assert provider.stats.clouds.issued == {}


async def test_the_clock_is_corrected(use):
    with SimulatedProvider(clouds=SimulatedClouds(clock_ahead=3600)) as provider:
        use(provider.cloud_environment("aws"))
        strategy = llm(NOVA)
        assert [await ask(strategy) for _ in range(3)]
        stats = provider.stats.clouds
    assert (stats.admitted, stats.rejected) == (3, {"skewed": 1})


@pytest.mark.parametrize("model", [NOVA, CLAUDE])
async def test_wrong_credentials_are_an_error_that_shows_no_secret(model, use):
    with SimulatedProvider(clouds=True) as provider:
        variables = {**provider.cloud_environment("aws"), "AWS_SECRET_ACCESS_KEY": "a/wrong+secret/0000000000000000"}
        use(variables)
        with pytest.raises(ProviderError) as caught:
            await ask(llm(model))
        assert provider.stats.clouds.rejected == {"signature": 1}
    assert caught.value.category == "authentication"
    assert not caught.value.is_retryable
    assert "does not match" in str(caught.value)
    assert "a/wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "model", "secret"),
    [
        ("aws_machine", NOVA, "simulated-session-token-"),
        ("google_machine", "vertex:gemini-3-flash", "simulated-token-of-"),
        ("azure", "azure:deployment", "simulated-client-secret-0"),
    ],
)
async def test_secrets_show_nowhere(source, model, secret, use, tmp_path):
    reply = "{excerpt}"
    with SimulatedProvider(replies=[reply], clouds=True, faults=[Fault(503, on=[3])]) as provider:
        use(provider.cloud_environment(source))
        strategy = llm(model)
        await ask(strategy)
        store = tmp_path / "store.jsonl"
        # A server that repeats what it was sent.
        result = await process_prompts(strategy, ["hello"], store=store)
    for text in (repr(strategy), repr(result), store.read_text(encoding="utf-8"), repr(vars(strategy))):
        assert secret not in text


async def test_bedrock_with_a_bearer_token(use):
    with SimulatedProvider(api_key="bedrock-api-key-0123456789", clouds=True) as provider:
        use({"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": provider.url})
        use({"AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key-0123456789"})
        assert await ask(llm(NOVA))
        assert await ask(llm(CLAUDE, api="converse"))
        with pytest.raises(ProviderError) as caught:
            await ask(llm(NOVA, api_key="another-key-0123456789"))
    assert caught.value.category == "permission_denied"


async def test_arns_are_sent_whole(use):
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12"
    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("aws"))
        assert await ask(llm(f"bedrock:{arn}"))
        assert await ask(llm(f"bedrock:{arn}", api="messages", stream=True))
        assert provider.stats.paths == {
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12/converse": 1,
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12"
            "/invoke-with-response-stream": 1,
        }


@pytest.mark.parametrize("model", [NOVA, CLAUDE])
async def test_damaged_and_broken_streams_are_tried_again(model, use):
    faults = [Fault("checksum", on=[1]), Fault("stream_error", on=[2]), Fault("cut", on=[3]), Fault(429, on=[4])]
    with SimulatedProvider(clouds=True, faults=faults) as provider:
        use(provider.cloud_environment("aws"))
        strategy = llm(model, stream=True)
        kinds = []
        for _ in range(4):
            with pytest.raises(ProviderError) as caught:
                await ask(strategy)
            assert caught.value.is_retryable
            kinds.append(caught.value.category)
        assert kinds == ["connection_error", "server_overload", "connection_error", "rate_limit"]
        assert await ask(strategy)


@pytest.mark.parametrize("model", [NOVA, CLAUDE, "vertex:gemini-3-flash", "vertex:claude-opus-5"])
async def test_schemas_and_tools(model, use):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with SimulatedProvider(clouds=True) as provider:
        use(provider.cloud_environment("aws" if model.startswith("bedrock") else "google_machine"))
        assert isinstance((await ask(llm(model, response_model=schema)))["n"], int)
        answer = await llm(model, tools=[add], tool_choice="required").execute("x", 1, 30.0)
        assert answer[2]["tool_calls"][0].name == "add"
        streamed = await llm(model, tools=[add], tool_choice="required", stream=True).execute("x", 1, 30.0)
        assert streamed[2]["tool_calls"][0].arguments == answer[2]["tool_calls"][0].arguments
        assert streamed[1] == answer[1]


# Google's files with credentials


def google_files(url: str, folder: Path) -> dict[str, dict]:
    """Files with credentials by the kind that the simulated provider counts."""
    (folder / "subject").write_text("a.subject.token\n", encoding="ascii")
    (folder / "subject.json").write_text(json.dumps({"inside": "a.subject.token"}), encoding="ascii")
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s3cret", "refresh_token": "r3fresh",
              "token_uri": f"{url}/google/token", "quota_project_id": "payer"}  # fmt: skip
    federated = {"type": "external_account", "audience": "//iam.googleapis.com/p", "token_url": f"{url}/google/sts",
                 "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}  # fmt: skip
    impersonation = f"{url}/google/impersonate/projects/-/serviceAccounts/sa@p:generateAccessToken"
    by_json = {"type": "json", "subject_token_field_name": "inside"}
    return {
        "google_service_account": {"type": "service_account", "client_email": "sa@p", "private_key": KEY,
                                   "private_key_id": "k", "project_id": "p", "token_uri": f"{url}/google/token"},
        "google_person": person,
        "google_federated": {**federated, "credential_source": {"file": str(folder / "subject")}},
        "google_federated by json": {
            **federated, "credential_source": {"file": str(folder / "subject.json"), "format": by_json}},
        "google_impersonated": {"type": "impersonated_service_account", "source_credentials": person,
                                "service_account_impersonation_url": impersonation},
        "google_impersonated by federation": {
            **federated, "credential_source": {"file": str(folder / "subject")},
            "service_account_impersonation_url": impersonation},
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["google_service_account", "google_person", "google_federated", "google_federated by json", "google_impersonated",
     "google_impersonated by federation"],
)  # fmt: skip
async def test_files_of_google(kind, use, tmp_path):
    with SimulatedProvider(clouds=True) as provider:
        path = tmp_path / "credentials.json"
        path.write_text(json.dumps(google_files(provider.url, tmp_path)[kind]), encoding="utf-8")
        use({"GOOGLE_VERTEX_BASE_URL": provider.url, "GOOGLE_CLOUD_PROJECT": "p"})
        use({"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
        assert await ask(llm("vertex:gemini-3-flash"))
        stats = provider.stats.clouds
    assert stats.admitted == 1
    assert kind.split()[0] in stats.issued


async def test_identities_of_workloads(use, tmp_path):
    (tmp_path / "token").write_text("a.web.identity", encoding="ascii")
    with SimulatedProvider(clouds=True) as provider:
        azure = provider.cloud_environment("azure")
        del azure["AZURE_CLIENT_SECRET"]
        use({**azure, "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")})
        assert await ask(llm("azure:deployment"))
        aws = provider.cloud_environment("aws_machine")
        use({**aws, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"})
        assert await ask(llm(NOVA))
        assert provider.stats.clouds.issued == {"entra_federated": 1, "aws_web_identity": 1}


async def test_profiles_of_aws(use, tmp_path):
    with SimulatedProvider(clouds=True) as provider:
        fixed = provider.cloud_environment("aws")
        key, secret = fixed.pop("AWS_ACCESS_KEY_ID"), fixed.pop("AWS_SECRET_ACCESS_KEY")
        use(fixed)
        folder = tmp_path / ".aws"
        folder.mkdir()
        keys = f"aws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        (folder / "credentials").write_text(f"[default]\n{keys}", encoding="ascii")
        (folder / "config").write_text(
            "[profile role]\nsource_profile = default\nrole_arn = arn:aws:iam::1:role/r\n", encoding="ascii"
        )
        assert await ask(llm(NOVA))
        assert provider.stats.clouds.issued == {}
        use({"AWS_PROFILE": "role"})
        assert await ask(llm(NOVA))
        assert provider.stats.clouds.issued == {"aws_role": 1}


# What is missing is said when the strategy is created


@pytest.mark.parametrize(
    ("model", "variables", "says"),
    [
        (NOVA, {}, "AWS_REGION"),
        (NOVA, {"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}, "AWS_BEARER_TOKEN_BEDROCK"),
        (NOVA, {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "none"}, "'none'|\"none\""),
        ("vertex:gemini-3", {}, "GOOGLE_CLOUD_PROJECT"),
        ("vertex:gemini-3", {"GOOGLE_CLOUD_PROJECT": "p", "NO_GCE_CHECK": "true"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("vertex:gemini-3", {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_APPLICATION_CREDENTIALS": "/no/file"}, "/no/file"),
        ("azure:d", {"AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com"}, "AZURE_OPENAI_API_KEY"),
    ],
)
def test_what_is_missing_is_named(model, variables, says, use):
    use(variables)
    with pytest.raises(ValueError, match=says):
        llm(model)


async def test_tokens_that_are_not_given_are_an_error_without_them(use, tmp_path):
    with SimulatedProvider(clouds=True) as provider:
        use({**provider.cloud_environment("azure"), "AZURE_CLIENT_SECRET": "a-wrong-secret-0123"})
        with pytest.raises(ProviderError) as caught:
            await ask(llm("azure:deployment"))
    assert caught.value.category == "authentication"
    assert not caught.value.is_retryable
    assert "AADSTS7000215" in str(caught.value)
    assert "a-wrong-secret" not in str(caught.value)


def test_credentials_go_to_no_other_address(use):
    with SimulatedProvider(clouds=True) as provider:
        aws = provider.cloud_environment("aws")
        use({**aws, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://elsewhere.example"})
        with pytest.raises(ValueError, match="no API key for bedrock"):
            llm(NOVA)  # in clear text
        row = row_of("bedrock")
        for place in ("https://elsewhere.example", "https://bedrock-runtime.evil.example", "https://x.amazonaws.com"):
            assert endpoint(row, place, None, "m").credentials is None
        at_home = endpoint(row, "https://bedrock-runtime.us-east-1.amazonaws.com", None, "m")
    assert at_home.credentials is not None
    assert at_home.credentials["AWS_ACCESS_KEY_ID"] == aws["AWS_ACCESS_KEY_ID"]
    assert aws["AWS_SECRET_ACCESS_KEY"] not in repr(at_home)
