# The dashboard; it reads the store and refuses to start without a login, since a container's port is for others.
#   docker build -f deploy/images/dashboard.Dockerfile -t slimfed-dashboard .
# PyPI's torch for x86-64 brings gigabytes of CUDA libraries. With an index of CPU builds there are none:
#   --build-arg PIP_EXTRA_INDEX_URL=ADDRESS
FROM python:3.11.14-slim-bookworm
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1
RUN useradd --uid 10001 --create-home slimfed && mkdir /runs /access && chown slimfed /runs /access
WORKDIR /opt/slimfed
ARG PIP_EXTRA_INDEX_URL
COPY . .
RUN pip install --constraint constraints.txt '.[dashboard]'
USER 10001
ENV SLIMFED_HOME=/runs SLIMFED_DASHBOARD_USERS=/access/users
EXPOSE 8501
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["slimfed", "dashboard", "--address", "0.0.0.0"]
