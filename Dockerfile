# The image of romana-ovs: docker build -t localhost/romana-ovs:0.1.0 .
# `make image` builds an image with the same contents without Docker (romana_ovs_emulate/image).

FROM golang:1.24-bookworm AS cni
WORKDIR /src
COPY etc/cni/ .
RUN CGO_ENABLED=0 GOWORK=off go build -trimpath -buildvcs=false -ldflags "-s -w" -o /romana-cni .

FROM debian:bookworm-slim AS python
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update -q && apt-get install -qy --no-install-recommends python3-venv python3-openvswitch
WORKDIR /src
COPY constraints.txt requirements.lock setup.cfg setup.py pyproject.toml README.md LICENSE romana-ovs-ryu.pth ./
# Ryu 4.34 is built by the setuptools of the constraint. Open vSwitch's own module is Debian's, of its own version.
RUN python3 -m venv --system-site-packages /opt/romana-ovs \
    && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        /opt/romana-ovs/bin/pip install --quiet --use-pep517 --requirement requirements.lock
COPY etc/ etc/
COPY romana_ovs/ romana_ovs/
# Left out is what nothing imports, as in romana_ovs_emulate/image/python_packages.py. Modules are compiled once: in a
# container, whose files are read-only, they would be at each start.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        /opt/romana-ovs/bin/pip install --quiet --no-deps . \
    && /opt/romana-ovs/bin/pip uninstall --quiet --yes aiohappyeyeballs aiohttp aiohttp-retry aiosignal frozenlist \
        multidict propcache yarl attrs markdown-it-py mdurl pygments pbr setuptools pip \
    && cd /opt/romana-ovs/lib/python3.11/site-packages \
    && rm -rf kubernetes/aio kubernetes/client/api/*_api.py kubernetes/client/models/[!_]* \
        netaddr/eui/*.txt netaddr/eui/*.idx ryu/tests ryu/contrib \
    && find . -name __pycache__ -prune -exec rm -rf {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash .

FROM debian:bookworm-slim
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        iproute2 libbpf1 libstdc++6 nftables python3 python3-openvswitch \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=python /opt/romana-ovs /opt/romana-ovs
COPY --from=cni /romana-cni /opt/romana-ovs/libexec/romana-cni
ENV PATH=/opt/romana-ovs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["romana-ovs"]
CMD ["--help"]
