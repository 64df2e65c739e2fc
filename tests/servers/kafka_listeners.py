"""How the tests' Kafka is listened to: who may sign in where, over what, and who may write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers.authority import Authority
from tests.servers.process import free_port

USER, PASSWORD = "writer", "right-pass-word"
# Signs in like USER, and has no rights until somebody grants some.
GUEST = "guest"
CONTROLLER, CLEAR = "CONTROLLER", "PLAINTEXT"
# Each listener's protocol. PROXIED is for whoever wants to stand in between.
LISTENERS = {
    CLEAR: "PLAINTEXT",
    CONTROLLER: "PLAINTEXT",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "PROXIED": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
    "SSL": "SSL",
}
LOGIN = "org.apache.kafka.common.security"
PLAIN = f'{LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}" user_{GUEST}="{PASSWORD}";'
# Whoever comes without signing in may do everything, as the tests' own clients do. Retention counts from
# the events' own time, which in tests is long ago: the broker would delete them when it next looks.
FIXED = f"""
process.roles=broker,controller
node.id=1
inter.broker.listener.name={CLEAR}
controller.listener.names={CONTROLLER}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={PLAIN}
listener.name.proxied.plain.sasl.jaas.config={PLAIN}
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
{LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER};User:CN={USER}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
"""
# For StorageTool: SCRAM's users live in the cluster's own log.
SCRAM = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"


def properties(directory: Path, ports: Mapping[str, int], proxy: int) -> str:
    """The broker's settings. `ports`: of each listener; `proxy`: where PROXIED tells clients to come."""
    where = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    advertised = {**where, "PROXIED": f"PROXIED://127.0.0.1:{proxy}"}
    del advertised[CONTROLLER]
    authority = Authority(directory)
    broker = authority.issue("broker")
    lines = [
        f"listeners={','.join(where.values())}",
        f"advertised.listeners={','.join(advertised.values())}",
        f"listener.security.protocol.map={','.join(f'{name}:{how}' for name, how in LISTENERS.items())}",
        f"controller.quorum.voters=1@127.0.0.1:{ports[CONTROLLER]}",
        f"log.dirs={directory / 'data'}",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={broker.together}",
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={authority.file}",
    ]
    authority.issue(USER)
    return FIXED + "\n".join(lines) + "\n"


def free_ports() -> dict[str, int]:
    """A port for each listener."""
    return {name: free_port() for name in LISTENERS}
