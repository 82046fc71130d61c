# A SuperNode on a Jetson with JetPack 6 (arm64, CUDA of the board). Build on the board, or with buildx:
#   docker buildx build --platform linux/arm64 -f deploy/images/client-jetson.Dockerfile -t slimfed-client-jetson .
# BASE must bring a PyTorch that is built for the board's GPU, and Python 3.11 or newer; see docs/jetson.md.
ARG BASE
FROM ${BASE}
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1 FLWR_TELEMETRY_ENABLED=0
RUN useradd --uid 10001 --create-home --groups video slimfed
WORKDIR /opt/slimfed
COPY . .
# The board's own torch stays: an index knows only builds without its GPU.
RUN python3 -c "import sys, torch; assert sys.version_info >= (3, 11) and torch.version.cuda, 'BASE lacks Python 3.11 or CUDA'" \
    && grep -v '^torch==' constraints.txt > /tmp/constraints.txt \
    && python3 -m pip install --constraint /tmp/constraints.txt '.[client]'
USER 10001
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 9094), 4).close()"]
ENTRYPOINT ["flower-supernode"]
