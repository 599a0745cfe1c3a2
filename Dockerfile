# One image for the API and the workers, for the processor alone.
#
#     docker build --tag rag .
#
# From the public registry, torch on x86-64 is the CUDA build, several GB more than the 2.5 GB that all the rest and
# torch's CPU build take. To get the CPU build, name an index that offers it; the same pin takes it:
#
#     docker build --tag rag --build-arg PIP_EXTRA_INDEX_URL=… .

FROM python:3.11-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/rag
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
# What the project needs, in a layer that stays when only the project changes.
RUN /opt/rag/bin/pip install --constraint constraints.txt '.[qdrant,s3,telemetry]'
COPY indexes indexes
COPY rag rag
COPY ingest ingest
COPY api api
RUN /opt/rag/bin/pip install --no-deps --force-reinstall .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home rag && install --directory --owner rag --group rag /data
COPY --from=build /opt/rag /opt/rag
# The weights of the default embedder are a package; no model hub is asked for any.
ENV PATH=/opt/rag/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    DO_NOT_TRACK=1 \
    RAG_CACHE=/data/cache \
    RAG_DATA=/data \
    RAG_SERVER_HOST=0.0.0.0
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "from http.client import HTTPConnection as To; to = To('127.0.0.1', 8000, timeout=4); to.request('GET', '/healthz'); raise SystemExit(to.getresponse().status != 200)"]
ENTRYPOINT ["rag"]
# Beyond loopback the server asks for RAG_API_KEY, and does not start without.
CMD ["serve"]
