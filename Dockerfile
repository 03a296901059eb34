# labgate as one static binary in an empty image.
#
#   docker build -t labgate .
#
# The builder is any Debian with gcc and the toolchain of rust-toolchain.toml; another one: --build-arg BUILDER=… (tests/image does that).
ARG BUILDER=rust:1.95.0-bookworm

FROM ${BUILDER} AS build
ARG TARGETARCH
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates musl-tools \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The target by the machine that the image is for; without BuildKit, the one that builds.
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
        amd64) target=x86_64-unknown-linux-musl ;; \
        arm64) target=aarch64-unknown-linux-musl ;; \
        *) echo "labgate is built for amd64 and arm64, not for ${TARGETARCH}" >&2; exit 1 ;; \
    esac \
    && echo "$target" > /target \
    && { [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"; }
# Dependencies in a layer of their own: it lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && printf '//! Stands in while dependencies build.\n' > src/lib.rs \
    && printf '//! Stands in while dependencies build.\nfn main() {}\n' > src/main.rs \
    && cargo build --profile dist --locked --target "$(cat /target)" \
    && rm -r src
COPY askama.toml ./
COPY src src
# Cargo goes by dates: what was copied may be older than what it replaces.
RUN touch src/lib.rs src/main.rs \
    && cargo build --profile dist --locked --target "$(cat /target)" --bin labgate \
    && install -D "target/$(cat /target)/dist/labgate" /image/labgate \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt
COPY LICENSE /image/LICENSE

FROM scratch
LABEL org.opencontainers.image.title="labgate" \
      org.opencontainers.image.description="GitLab sign-in in front of any web application" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /image /
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 4180
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/labgate", "health"]
ENTRYPOINT ["/labgate"]
CMD ["run"]
