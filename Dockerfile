# A small image that runs as nobody in particular: built in one stage, without its tools in the next.
#
#   docker build -t evenkeel .
#   docker run --read-only -p 80:8080 --stop-timeout 40 -v ./evenkeel.toml:/etc/evenkeel/evenkeel.toml:ro evenkeel
#
# `--stop-timeout`: Docker kills after 10 seconds otherwise, and `server.shutdown_grace` is 30. In Kubernetes it is
# `terminationGracePeriodSeconds`, and 30 already.
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
ARG RUN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Symbols stay, for readable backtraces; line tables would be most of the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Dependencies first: they change less often than the code, and this layer is kept until they do.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
    && benches=$(sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"/benches\/\1.rs/p}' Cargo.toml) \
    && echo 'fn main() {}' | tee src/main.rs $benches > /dev/null \
    && touch src/lib.rs \
    && cargo build --release --locked --bin evenkeel \
    && rm -rf src benches
COPY src src
COPY benches benches
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin evenkeel

FROM ${RUN_IMAGE}
# The certificates of public authorities, for endpoints that are verified by them.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/evenkeel /usr/local/bin/evenkeel
COPY config/container.toml /etc/evenkeel/evenkeel.toml
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENV EVENKEEL_CONFIG=/etc/evenkeel/evenkeel.toml
EXPOSE 8080 8443 9900
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["evenkeel", "healthz"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["evenkeel"]
CMD ["run"]
