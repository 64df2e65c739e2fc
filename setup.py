"""Metadata of grantex-beam: what Beam's `--setup_file` builds and what `pip install` reads."""

from pathlib import Path

from setuptools import find_packages, setup

# Lower bounds are the oldest versions with everything that is used; requirements.txt pins all of them.
INSTALL_REQUIRES = [
    # One minor version only: transforms reach into one of its internals, behind a version guard.
    "apache-beam[gcp]>=2.77,<2.78",
    "boto3>=1.35",
    # From here on an admin client and a consumer renew their tokens by themselves.
    "confluent-kafka>=2.13",
    "certifi",
    # Pipelines, monitors and dashboards: provisioning.
    "datadog-api-client>=2.62,<3",
    "google-auth>=2.30",
    "google-cloud-bigquery>=3.30",
    # Only its protobuf messages are used: the calls themselves are made in transforms/write.
    "google-cloud-bigquery-storage>=2.30",
    # Only its protobuf messages, as well.
    "google-cloud-pubsub>=2.26",
    "google-cloud-secret-manager>=2.20",
    "google-cloud-storage>=2.19",
    "grpcio>=1.65",
    "httpx>=0.28,<0.29",
    "httpx-sse>=0.4.3,<0.5",
    "isal>=1.7",
    "msgspec>=0.19",
    "numpy>=2.1",
    "prometheus-client>=0.21",
    "pyyaml>=6.0",
    "requests>=2.31",
    "rich>=13.9",
    # Splunk's management port: provisioning.
    "splunk-sdk>=2.1,<3",
    # The server of the status page and of the webhook receiver.
    "waitress>=3.0.1,<4",
    "websockets>=15",
    "xxhash>=3.5",
    "zstandard>=0.23",
]

# Amazon MSK with IAM: --kafka_token=msk-iam.
MSK_REQUIRES = ["aws-msk-iam-sasl-signer-python>=1.0.2"]

DEV_REQUIRES = [
    # Grafana's typed dashboards.
    "grafana-foundation-sdk==1769699998!10.1.0; python_version >= '3.11'",
    # The service's own package: an oracle for webhook signatures.
    "grantex==0.7.2",
    # The reader of replies that ours is compared with; httpx brings it.
    "h11>=0.16",
    "hypothesis>=6.140",
    "kubernetes-validate>=1.31",
    "mypy>=1.18",
    "playwright>=1.55",
    # A real outgoing proxy: CONNECT, credentials, TLS inspection.
    "proxy.py>=2.4.10",
    "pytest>=8.4",
    "pytest-rerunfailures>=16",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "python-hcl2>=8.1",
    "ruff>=0.14",
    # Athena's dialect, parsed.
    "sqlglot>=27",
]

setup(
    name="grantex-beam",
    version="0.1.0",
    description="Keeps BigQuery, S3, Datadog, Splunk and Kafka complete from the Grantex event feed.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["pipelines", "pipelines.*", "transforms", "transforms.*"]),
    package_data={"pipelines": ["py.typed", "local/page/*"], "transforms": ["py.typed"]},
    install_requires=INSTALL_REQUIRES,
    extras_require={"dev": DEV_REQUIRES, "msk": MSK_REQUIRES},
    entry_points={"console_scripts": ["grantex-beam = pipelines.programs:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Logging",
        "Typing :: Typed",
    ],
)
