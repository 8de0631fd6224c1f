# syntax=docker/dockerfile:1

# The compiler runs natively on the build machine and cross-compiles, so nothing is emulated.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=devel
# cmd/larder/build_test.go runs this command. The flags are defined only here.
RUN CGO_ENABLED=0 GOOS="$TARGETOS" GOARCH="$TARGETARCH" \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/larder ./cmd/larder
# An empty folder to copy, because a new volume takes its owner from the image.
RUN mkdir /out/data

FROM scratch
ARG VERSION=devel
# The commit. The build cannot see it, because .dockerignore excludes .git.
ARG REVISION=""
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="A node-local pull-through cache for container images, made for Amazon ECR" \
      org.opencontainers.image.source="https://github.com/larder-registry/larder" \
      org.opencontainers.image.documentation="https://github.com/larder-registry/larder/blob/main/deploy/OPERATIONS.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /LICENSE
# The image has no packages except Go modules. The binary lists them (go version -m), and scanners read that list.
COPY --from=build /out/larder /larder
COPY --from=build --chown=65532:65532 /out/data /var/lib/larder
# The default would be the user's cache folder, but the user has no home folder.
ENV LARDER_CACHE_DIR=/var/lib/larder
VOLUME /var/lib/larder
USER 65532:65532
# Registry and admin. By default both listen on loopback. Use the host's network, or set LARDER_LISTEN and LARDER_ADMIN and
# restrict access to them.
EXPOSE 5000 5001
ENTRYPOINT ["/larder"]
CMD ["serve"]
