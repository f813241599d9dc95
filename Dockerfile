# A server for one model, on a CPU and not as root:
#
#   docker build -t emodarts .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs/x/fold-0/seed-0/model:/model:ro" emodarts
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/emodarts \
    && /opt/emodarts/bin/pip install --no-cache-dir -c constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu ".[serve]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home emodarts
COPY --from=build /opt/emodarts /opt/emodarts
ENV PATH=/opt/emodarts/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba
USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=30s --interval=30s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["emodarts"]
CMD ["serve", "/model", "--host", "0.0.0.0"]
