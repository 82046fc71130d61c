# A SuperNode on x86-64 (CPU):
#   docker build -f deploy/images/client.Dockerfile -t slimfed-client .
# PyPI's torch for x86-64 brings gigabytes of CUDA libraries. With an index of CPU builds there are none:
#   --build-arg PIP_EXTRA_INDEX_URL=ADDRESS
FROM python:3.11.14-slim-bookworm
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1 FLWR_TELEMETRY_ENABLED=0
RUN useradd --uid 10001 --create-home slimfed
WORKDIR /opt/slimfed
ARG PIP_EXTRA_INDEX_URL
COPY . .
RUN pip install --constraint constraints.txt '.[client]'
USER 10001
# The node has no port for others; it is well while its process that waits for work is there.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9094), 4).close()"]
ENTRYPOINT ["flower-supernode"]
