# SuperLink, `slimfed` and the ServerApp. Build from the repository's root:
#   docker build -f deploy/images/server.Dockerfile -t slimfed-server .
# PyPI's torch for x86-64 brings gigabytes of CUDA libraries. With an index of CPU builds there are none:
#   --build-arg PIP_EXTRA_INDEX_URL=ADDRESS
FROM python:3.11.14-slim-bookworm
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1 FLWR_TELEMETRY_ENABLED=0
RUN useradd --uid 10001 --create-home slimfed && mkdir /runs /keys && chown slimfed /runs /keys
WORKDIR /opt/slimfed
ARG PIP_EXTRA_INDEX_URL
COPY . .
RUN pip install --constraint constraints.txt '.[server]'
USER 10001
ENV SLIMFED_HOME=/runs
VOLUME /runs /keys
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import ssl,urllib.request as u; u.urlopen('https://localhost:8000/health',timeout=4,context=ssl.create_default_context(cafile='/keys/ca.crt'))"]
ENTRYPOINT ["flower-superlink"]
CMD ["--ssl-certfile", "/keys/server.crt", "--ssl-keyfile", "/keys/server.key", "--ssl-ca-certfile", "/keys/ca.crt", \
    "--enable-supernode-auth", "--disable-runtime-dependency-installation", "--host", "0.0.0.0", "--port", "8000", \
    "--database", "/runs/superlink.db"]
