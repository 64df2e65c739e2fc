"""Detections about this job itself and about the service, from metrics: Prometheus only."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Language, Rule, Threshold

NOT_EVENTS: dict[Language, str] = {
    "splunk": "It is about the exporter, whose metrics are Prometheus'; no event speaks of it.",
    "datadog": "The same; the Datadog Agent can scrape them (its OpenMetrics check).",
    "bigquery": "The same.",
    "athena": "The same.",
}

FEED_DOWN = Detection(
    name="feed_down",
    title="Feed down, gap open, nothing heard",
    why="What the service publishes while nobody listens is gone for good. Silence of events is no loss; "
    "silence of the connection is: keepalives come every 30 s.",
    todo="Open the status page: it names the reason (key, proxy, slots, service). A gap is on record with "
    "its bounds; a webhook or the service's ledger says what fell into it.",
    severity="critical",
    thresholds={
        "silent": Threshold(90, "seconds without a byte; three keepalives"),
        "proof": Threshold(900, "seconds that the ledger's proof may be behind"),
    },
    rules=(
        Rule(
            "GrantexExporterAbsent",
            "absent(grantex_feed_connections)",
            "3m",
            "critical",
            "Nobody exports: no grantex-beam is scraped.",
        ),
        Rule(
            "GrantexFeedDown",
            "grantex_feed_connections == 0 unless on (instance) grantex_standby == 1",
            "2m",
            "critical",
            "No stream of the feed is open: what is published now is lost.",
        ),
        Rule(
            "GrantexFeedSilent",
            "time() - grantex_feed_last_heard_timestamp_seconds > @{silent}"
            " and grantex_feed_last_heard_timestamp_seconds > 0"
            " unless on (instance) grantex_standby == 1",
            "1m",
            "critical",
            "Not one byte from the feed for {{ $value | humanizeDuration }}; keepalives come every 30 s.",
        ),
        Rule(
            "GrantexFeedGapOpen",
            "grantex_feed_gap_open == 1",
            "1m",
            "critical",
            "A gap is open: events of this moment may be missed.",
        ),
        Rule(
            "GrantexFeedGap",
            "increase(grantex_feed_gaps_total[15m]) > 0",
            "0m",
            "warning",
            "A gap was recorded: ask the ledger what fell into it (reconcile).",
        ),
        Rule(
            "GrantexFeedFewConnections",
            "grantex_feed_connections < grantex_feed_connections_wanted",
            "15m",
            "warning",
            "Open connections: {{ $value }}, fewer than wanted; the next cut may be a gap.",
        ),
        Rule(
            "GrantexEventsMissing",
            "increase(grantex_ledger_missing_total[1h]) > 0",
            "0m",
            "critical",
            "The service's ledger names events that never came.",
        ),
        Rule(
            "GrantexProofOld",
            "time() - grantex_ledger_proven_until_timestamp_seconds > @{proof}"
            " and grantex_ledger_proven_until_timestamp_seconds > 0",
            "5m",
            "warning",
            "For {{ $value | humanizeDuration }} nobody has compared with the service's ledger.",
        ),
    ),
    without=NOT_EVENTS,
)

EXPORTER_TROUBLE = Detection(
    name="exporter_trouble",
    title="Delivery late, circuit open, dead letters, journal full",
    why="Events are safe in the journal, but not where they are looked for; past the journal's bound the "
    "feed is not read any more.",
    todo="The status page has the destination's state and its last error; docs/failures.md what to do.",
    severity="critical",
    thresholds={
        "late": Threshold(300, "seconds that the oldest event of a destination may wait"),
        "very_late": Threshold(1800, "seconds, critical"),
        "restarts": Threshold(2, "restarts of a destination within 15 minutes"),
    },
    rules=(
        Rule(
            "GrantexDeliveryLate",
            "grantex_delivery_lag_seconds > @{late}",
            "5m",
            "warning",
            "{{ $labels.destination }}: the oldest event has waited {{ $value | humanizeDuration }}.",
        ),
        Rule(
            "GrantexDeliveryVeryLate",
            "grantex_delivery_lag_seconds > @{very_late}",
            "5m",
            "critical",
            "{{ $labels.destination }}: the oldest event has waited {{ $value | humanizeDuration }}.",
        ),
        Rule(
            "GrantexDestinationDown",
            "grantex_circuit_open == 1",
            "10m",
            "critical",
            "{{ $labels.destination }} does not take events; they wait in the journal.",
        ),
        Rule(
            "GrantexDestinationNeedsYou",
            'grantex_destination_state{state="needs_you"} == 1',
            "5m",
            "critical",
            "{{ $labels.destination }} does not heal by itself: the status page says what to do.",
        ),
        Rule(
            "GrantexDeadLetters",
            "increase(grantex_events_dead_lettered_total[15m]) > 0",
            "0m",
            "warning",
            "{{ $labels.destination }} ({{ $labels.stage }}): events were put aside; see the dead letters.",
        ),
        Rule(
            "GrantexDestinationRestarts",
            "increase(grantex_lane_restarts_total[15m]) > @{restarts}",
            "0m",
            "warning",
            "{{ $labels.destination }} fails and starts again; the log has the traceback.",
        ),
        Rule(
            "GrantexJournalFilling",
            "grantex_journal_bytes / grantex_journal_max_bytes > 0.8",
            "5m",
            "warning",
            "The journal is {{ $value | humanizePercentage }} full; past its bound the feed is not read.",
        ),
        Rule(
            "GrantexJournalFull",
            "grantex_journal_bytes / grantex_journal_max_bytes > 0.95",
            "1m",
            "critical",
            "The journal is {{ $value | humanizePercentage }} full: reading pauses, which is a gap.",
        ),
    ),
    without=NOT_EVENTS,
)

DETECTIONS = (FEED_DOWN, EXPORTER_TROUBLE)

# The service's own /metrics, with the thresholds that its guide gives. What the values of `status` are called
# differs between its versions, so the words for success are counted out.
_OK = 'status=~"success|succeeded|ok|delivered|2.."'
_TOKENS = (
    f"1 - sum(rate(grantex_token_exchange_total{{{_OK}}}[5m])) / sum(rate(grantex_token_exchange_total[5m]))"
)
_WEBHOOKS = (
    f"sum(rate(grantex_webhook_deliveries_total{{{_OK}}}[15m])) "
    "/ sum(rate(grantex_webhook_deliveries_total[15m]))"
)
_AUTHORIZE = "histogram_quantile(0.99, sum by (le) (rate(grantex_authorize_duration_seconds_bucket[5m])))"
_ANOMALIES = "sum(increase(grantex_anomalies_detected_total[1h]))"
_REFUSED = '60 * sum(rate(grantex_http_request_duration_seconds_count{status_code="429"}[5m]))'


def _pair(alert: str, expr: str, sign: str, warning: str, critical: str, summary: str) -> tuple[Rule, Rule]:
    return (
        Rule(alert, f"{expr} {sign} {warning}", "5m", "warning", summary),
        Rule(f"{alert}Critical", f"{expr} {sign} {critical}", "5m", "critical", summary),
    )


SERVICE_RULES = (
    *_pair(
        "GrantexTokenExchangeFails",
        _TOKENS,
        ">",
        "0.05",
        "0.15",
        "{{ $value | humanizePercentage }} of token exchanges fail.",
    ),
    *_pair(
        "GrantexWebhooksFail",
        _WEBHOOKS,
        "<",
        "0.98",
        "0.95",
        "Only {{ $value | humanizePercentage }} of webhook deliveries succeed.",
    ),
    *_pair(
        "GrantexAuthorizeSlow",
        _AUTHORIZE,
        ">",
        "0.5",
        "2",
        "One in a hundred authorizations takes {{ $value | humanizeDuration }} or more.",
    ),
    *_pair("GrantexAnomalies", _ANOMALIES, ">", "5", "10", "{{ $value }} anomalies within an hour."),
    *_pair("GrantexRateLimited", _REFUSED, ">", "50", "200", "{{ $value }} requests a minute answered 429."),
)
