# With a compiler: training and measuring are C++ that is compiled for the machine it runs on (engine/native).
# With CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/neverseen
ENV PATH=/opt/neverseen/bin:$PATH
WORKDIR /src
# torch first: nearly all of the image, and a layer that stays while its pin stays.
COPY pyproject.toml ./
RUN pip install --index-url "$TORCH_INDEX" "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
COPY LICENSE README.md ./
COPY app app
COPY engine engine
COPY migrations migrations
RUN pip install .

FROM python:${PYTHON}-slim AS service
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/neverseen /opt/neverseen
# The root file system may be read-only: what is written goes to /data, compiled code too, and other caches to /tmp.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp neverseen \
    && install --directory --owner neverseen --group neverseen /data
ENV PATH=/opt/neverseen/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NEVERSEEN_DATA_DIR=/data \
    XDG_CACHE_HOME=/data/.cache \
    NEVERSEEN_HOST=0.0.0.0 \
    NEVERSEEN_PORT=8000
USER neverseen
WORKDIR /data
VOLUME /data
ENTRYPOINT ["neverseen"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["serve"]
