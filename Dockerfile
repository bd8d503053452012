# One image for every service of compose.yaml: a member, the one-shot services, a client. No secret is ever in it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# A compiler makes the PKCS#11 module; the image is whole without it.
RUN command -v cc >/dev/null \
    || { apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev; } >/dev/null \
    || echo "without a C compiler the image has no PKCS#11 module"
RUN python3 -m venv --without-pip /opt/lnh \
    && python3 -m venv /build-tools \
    && /build-tools/bin/pip install --quiet --no-cache-dir --disable-pip-version-check 'hatchling>=1.27'
WORKDIR /src
# The dependencies are a layer of their own: a change of the code does not fetch them again.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >/requirements \
    && /build-tools/bin/pip --python /opt/lnh/bin/python install --quiet --no-cache-dir --disable-pip-version-check -r /requirements
COPY README.md LICENSE hatch_build.py ./
COPY common common
COPY services services
COPY client client
RUN /build-tools/bin/pip wheel --quiet --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /build-tools/bin/pip --python /opt/lnh/bin/python install --quiet --no-cache-dir --disable-pip-version-check --no-index \
        --no-deps /wheel/*.whl

FROM ${BASE}
# A volume takes over owner and mode of the directory it is first mounted on.
RUN groupadd --gid 10001 lnh \
    && useradd --uid 10001 --gid lnh --no-create-home --home-dir /var/lib/lnh --shell /usr/sbin/nologin lnh \
    && for directory in member a b c d client pkcs11 secrets/member secrets/client secrets/bootstrap; do \
           install -d -o lnh -g lnh -m 0700 "/var/lib/lnh/$directory"; \
       done \
    && chmod 0755 /var/lib/lnh/secrets
COPY --from=build /opt/lnh /opt/lnh
ENV PATH=/opt/lnh/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/lnh
CMD ["lnh", "--help"]
