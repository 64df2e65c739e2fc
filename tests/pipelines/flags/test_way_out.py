"""Proxies and certificates that cannot be used: one line, exit code 2 (faults f02a to f02d)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import certifi
import pytest

from pipelines.flags.settings import BadParameters, Settings, parse
from transforms.proxies import parse_proxy
from transforms.way_out import WayOut

BASE = ["--feed_api_key=env:KEY", "--files_dir=./out"]
KEY = {"KEY": "0123456789abcdef"}


def parsed(*flags: str, **environ: str) -> Settings:
    return parse([*BASE, *flags], KEY | environ)


def faults(*flags: str, **environ: str) -> list[str]:
    with pytest.raises(BadParameters) as error:
        parsed(*flags, **environ)
    return list(error.value.lines)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    directory = tmp_path_factory.mktemp("pair")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return certificate, key


# The environment


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "SOCKS"),  # f02c
        ("HTTPS_PROXY", '"http://user:s3cret-word@proxy.test:3128"', "must begin with http://"),
        ("https_proxy", "http://user:s3cret-word@proxy.test:3128'", "no address of a proxy"),
        ("SSL_CERT_FILE", "/no/such/ca.pem", "cannot be read (No such file or directory)"),  # f02d
        ("SSL_CERT_FILE", '"/etc/ssl/cert.pem"', "cannot be read"),
        ("SSL_CERT_DIR", "/no/such/directory", "cannot be read"),
        ("SSLKEYLOGFILE", "/no/such/directory/keys", "cannot be written (No such file or directory)"),
        ("SSLKEYLOGFILE", "/", "cannot be written (Is a directory)"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(name: str, value: str, words: str) -> None:
    (line,) = faults(**{name: value})
    assert line.startswith(f"{name}: ")
    assert words in line
    assert "s3cret-word" not in line


@pytest.mark.parametrize(
    "no_proxy", ["localhost,127.0.0.1,10.0.0.0/16,fd01::/48", "localhost,[::1]"], ids=["f02a", "f02b"]
)
def test_no_proxy_with_networks_and_brackets_is_understood(no_proxy: str) -> None:
    assert parsed(HTTPS_PROXY="http://proxy.test:3128", NO_PROXY=no_proxy).warnings == ()


def test_entries_of_no_proxy_that_match_nothing_are_a_warning() -> None:
    (line,) = parsed(NO_PROXY="*.a.test,b.test:80,c.test").warnings
    assert line.startswith("NO_PROXY: matches nothing with *.a.test, b.test:80; write")
    assert parsed("--http_proxy=proxy.test:3128", NO_PROXY="*.a.test").warnings == ()


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (["--feed_url=http://127.0.0.1:8080"], {}),
        (["--feed_url=http://[::1]:8080"], {}),
        (["--feed_url=https://feed.test"], {"NO_PROXY": ".test"}),
        (["--feed_url=https://feed.test"], {"HTTPS_PROXY": "http://proxy.test:3128"}),
        (["--feed_url=https://feed.test", "--http_proxy=http://proxy.test:3128"], {}),
    ],
)
def test_a_proxy_that_is_not_asked_for_may_be_anything(flags: list[str], environ: dict[str, str]) -> None:
    parsed(*flags, ALL_PROXY="socks5://127.0.0.1:1080", **environ)


def test_each_destination_counts() -> None:
    near = "--feed_url=http://127.0.0.1:8080"
    away = {"ALL_PROXY": "socks5://127.0.0.1:1080"}
    assert faults(near, "--splunk_hec_url=https://s.test", "--splunk_hec_token=env:KEY", **away)
    assert faults(near, "--bigquery_table=p.d.t", **away)
    assert faults(near, "--s3_bucket=my-bucket", **away)
    parsed(near, "--s3_bucket=my-bucket", "--s3_endpoint=http://127.0.0.1:9000", **away)
    parsed(near, "--kafka_bootstrap_servers=a:1", **away)


def test_one_fault_is_one_line() -> None:
    assert (
        len(faults("--s3_bucket=my-bucket", "--bigquery_table=p.d.t", ALL_PROXY="socks5://127.0.0.1:1080"))
        == 1
    )


# The flags


def test_they_arrive(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    settings = parsed(
        f"--ca_file={certifi.where()}",
        "--http_proxy=http://proxy.test:3128",
        f"--client_certificate={certificate}",
        f"--client_key={key}",
    )
    assert settings.way_out == WayOut(
        parse_proxy("http://proxy.test:3128"), certifi.where(), str(certificate), str(key)
    )
    assert parsed().way_out == WayOut()


@pytest.mark.parametrize("value", ["socks5://s3cret-word@p.test", "https://u:s3cret-word@p.test", "p.test:0"])
def test_a_proxy_that_is_none_is_refused_and_not_shown(value: str) -> None:
    (line,) = faults(f"--http_proxy={value}")
    assert line.startswith("--http_proxy")
    assert "s3cret-word" not in line


def test_a_password_is_never_shown_and_warned_of() -> None:
    value = "http://user:s3cret-word@proxy.test:3128"
    settings = parsed(f"--http_proxy={value}")
    assert "s3cret-word" not in repr(settings)
    assert any("password on a command line" in line for line in settings.warnings)
    assert parsed(GRANTEX_HTTP_PROXY=value).warnings == ()
    lines = faults(
        "--runner=DataflowRunner",
        "--project=p",
        "--region=europe-west1",
        "--temp_location=gs://b/t",
        "--dead_letters=gs://b/d",
        GRANTEX_HTTP_PROXY=value,
    )
    (line,) = [line for line in lines if line.startswith("GRANTEX_HTTP_PROXY")]
    assert "one machine only" in line
    assert "s3cret-word" not in line


def test_a_client_certificate_must_fit_its_key(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pair
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert parsed(f"--client_certificate={both}").way_out.client_key is None
    for flags, words in (
        ([f"--client_key={key}"], "needs --client_certificate"),
        ([f"--client_certificate={certificate}"], "fits the key"),
        (["--client_certificate=./none.pem"], "cannot be read"),
        ([f"--client_certificate={certificate}", "--client_key=./none.pem"], "--client_key: the file cannot"),
        ([f"--client_certificate={key}", f"--client_key={certificate}"], "does not hold a certificate"),
    ):
        (line,) = faults(*flags)
        assert words in line


def test_a_key_with_a_passphrase_is_said_at_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """OpenSSL would ask for it on the terminal, and wait."""
    locked = tmp_path / "locked.pem"
    command = ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", str(pair[1]), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    (line,) = faults(f"--client_certificate={pair[0]}", f"--client_key={locked}")
    assert "passphrase" in line
