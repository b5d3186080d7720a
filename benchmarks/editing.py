"""One value of a large values file, changed and verified, against a parse and against load and dump."""

import io
import random
from collections.abc import Callable, Iterator

from ruamel.yaml import YAML

from benchmarks.report import Bar, Figure, ratio, say
from benchmarks.writers import seconds
from bot.integrations.values import ValuesFile

PARSE_BAR = Bar(limit=4.5)
DUMP_BAR = Bar(limit=15, is_floor=True)
LINES = 6000
KEY = "component80.image.tag"

BLOCK = """\
## Deploy component {n} of the stack. Switching it off removes its service, its rules and its dashboards too,
## so silence the alerts that depend on them first; see the runbook of the monitoring team for their names.
## ref: https://example.com/docs/component-{n}.md#configuration
##
component{n}:
  enabled: {flag}

  ## Labels and annotations for component {n}, merged with those that the operator adds on its own
  ##
  labels: {{}}
  annotations:
    prometheus.io/scrape: "true"
    prometheus.io/port: "{port}"

  image:
    registry: quay.io
    repository: prometheus/component-{n}
    tag: v0.{n}.1  # the release of the chart decides
    sha: ""
    pullPolicy: IfNotPresent

  ## Resources of one pod
  resources:
    limits: {{cpu: 200m, memory: {port}Mi}}
    requests:
      cpu: 100m
      memory: 30Mi

  ## Service; nodePort is ignored where the type is ClusterIP, and the load balancer's address with it
  ##
  service:
    port: {port}
    targetPort: {port}
    type: ClusterIP
    externalIPs: []
    # nodePort: 30903

  rules:
    - alert: Component{n}Down
      expr: |-
        absent(up{{job="component-{n}", namespace="monitoring", cluster="production"}} == 1)
        # the exporter restarts once a night, which is why this waits for a quarter of an hour
          or up{{job="component-{n}", namespace="monitoring", cluster="production"}} == 0
          or absent_over_time(component_{n}_last_reload_successful{{namespace="monitoring"}}[10m])
      for: 15m
      labels:
        severity: critical
    - alert: Component{n}Slow
      expr: 'histogram_quantile(0.99, component_{n}_seconds) > 1'
      for: 5m

  ## Where its pods may run. An empty map leaves that to the scheduler and the defaults of the namespace.
  # affinity:
  #   nodeAffinity:
  #     requiredDuringSchedulingIgnoredDuringExecution:
  #       nodeSelectorTerms: []
  tolerations: []
  nodeSelector:
    kubernetes.io/os: linux
"""


def edits(*, rounds: int, order: random.Random) -> Iterator[Figure]:
    """The two ratios."""
    text = large_file()
    jobs: dict[str, Callable[[], object]] = {
        "edit": lambda: ValuesFile(text, "values.yaml").edited({KEY: "v0.80.2"}),
        "parse": lambda: list(YAML(typ="safe").parse(text.decode())),
        "dump": lambda: load_and_dump(text),
    }
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name in order.sample(list(jobs), len(jobs)):
            taken[name].append(seconds(jobs[name]))
        say(f"  a values file of {len(text) // 1000} kB: round {number + 1} of {rounds}")
    what = f"a values file of {len(text.splitlines()):,} lines, {len(text) // 1000} kB"
    yield ratio(f"{what}: edit and verify against one C parse", taken["edit"], taken["parse"], bar=PARSE_BAR)
    yield ratio(f"{what}: load and dump against edit and verify", taken["dump"], taken["edit"], bar=DUMP_BAR)


def large_file() -> bytes:
    """A values file as large charts have them: about 200 kB, a third of it comments."""
    text, number = "", 0
    while text.count("\n") < LINES:
        number += 1
        text += BLOCK.format(n=number, flag="true" if number % 2 else "false", port=9000 + number) + "\n"
    return "".join(text.splitlines(keepends=True)[:LINES]).encode()


def load_and_dump(text: bytes) -> str:
    """The usual way: the whole file through ruamel's round trip."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    tree = yaml.load(text)
    tree["component80"]["image"]["tag"] = "v0.80.2"
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()
