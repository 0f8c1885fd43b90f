# The vendor's image. Build: docker build -t vl2v-vendor:0.2.0 . (docs/operating/docker.md)
ARG BASE=python:3.12-slim
FROM ${BASE}

RUN useradd --uid 10001 --create-home vl2v \
    && mkdir -p /var/lib/vl2v /home/vl2v/.cache && chown vl2v:vl2v /var/lib/vl2v /home/vl2v/.cache

WORKDIR /opt/vl2v
# Versions and hashes are those that `make lock` wrote.
COPY deploy/requirements.txt ./
RUN pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.txt
# Empty: what the plain name gives, on Linux with CUDA, about 6 GB. For CPUs alone, name the index that PyTorch's
# installation page has for them; the image is 1.4 GB then.
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "torch>=2.6" "torchvision>=0.21"
# `--build-arg EXTRAS=vendor,otel` for traces.
ARG EXTRAS=vendor
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY shared shared
COPY vendor_api vendor_api
COPY client client
RUN pip install --no-cache-dir --no-build-isolation ".[${EXTRAS}]" && pip check

USER vl2v
ENV VL2V_VENDOR_DATA_DIR=/var/lib/vl2v \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/vl2v
EXPOSE 8000
# A start may take `max_load_seconds`, 1,800; a check of the ledger 5 s.
HEALTHCHECK --interval=10s --timeout=8s --start-period=1860s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=7)"]
CMD ["vl2v-vendor", "serve", "--host", "0.0.0.0", "--port", "8000"]
