{{- define "larder.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 53 characters, so that names with a suffix are valid too. */}}
{{- define "larder.fullname" -}}
{{- $name := include "larder.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "larder.selectorLabels" -}}
app.kubernetes.io/name: {{ include "larder.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "larder.labels" -}}
{{ include "larder.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "larder.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "larder.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "larder.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is not set, and has no default: build the image with Larder's Dockerfile, push it to a registry that the nodes can pull from without Larder, and add --set image.repository=<registry>/<repository>" -}}
{{- end -}}
{{- include "larder.checkPolicy" . -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Fails if a policy could keep Larder's own image from running: a node could never start it then. The first rule that matches counts. */}}
{{- define "larder.checkPolicy" -}}
{{- $image := .Values.image.repository -}}
{{- $decided := false -}}
{{- range .Values.config.policy -}}
{{- $host := splitList "/" .match | first -}}
{{- $repository := trimPrefix (printf "%s/" $host) .match -}}
{{- $hostPattern := $host | replace "." "\\." | replace "*" "[^.]+" -}}
{{- if eq $host "*" }}{{ $hostPattern = "[^/]+" }}{{ end -}}
{{- $pattern := printf "^%s/%s$" $hostPattern ($repository | replace "." "\\." | replace "*" ".*") -}}
{{- if and (not $decided) (regexMatch $pattern $image) -}}
{{- $decided = true -}}
{{- if and (eq (.mode | default "") "enforce") (omit . "match" "mode" "offline") -}}
{{- fail (printf "config.policy: the rule for %s covers Larder's own image, %s, so that a node could never start it: put a rule without conditions before it, {match: %q}" .match $image $image) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the nodes share what they fetch. config.peers may be empty. */}}
{{- define "larder.peers" -}}
{{- if kindIs "map" .Values.config.peers -}}true{{- end -}}
{{- end -}}

{{/* Whether the chart mounts the cluster's key. */}}
{{- define "larder.peersKeyIsOurs" -}}
{{- if and (include "larder.peers" .) (not .Values.config.peers.key_file) -}}true{{- end -}}
{{- end -}}

{{/* The folder of the cluster's key. */}}
{{- define "larder.peersFolder" -}}/etc/larder-peers{{- end -}}

{{/* The address at which the nodes give content to each other. */}}
{{- define "larder.peersListen" -}}
{{- .Values.config.peers.listen | default "0.0.0.0:5002" -}}
{{- end -}}

{{- define "larder.peersGossipPort" -}}
{{- add1 (include "larder.port" (include "larder.peersListen" .)) -}}
{{- end -}}

{{/* The configuration, with what the chart knows of config.peers. */}}
{{- define "larder.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if include "larder.peers" . -}}
{{- $join := printf "dns:%s-peers.%s.svc:%s" (include "larder.fullname" .) .Release.Namespace (include "larder.peersGossipPort" .) -}}
{{- $key := printf "%s/peers.key" (include "larder.peersFolder" .) -}}
{{- $_ := set $config "peers" (merge (dict) $config.peers (dict "join" (list $join) "key_file" $key)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "larder.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* The host at which the kubelet and other processes on the node reach a listen address. */}}
{{- define "larder.host" -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- if has $host (list "" "0.0.0.0" "::") -}}
127.0.0.1
{{- else -}}
{{- $host -}}
{{- end -}}
{{- end -}}

{{- define "larder.isLoopback" -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" . -}}true{{- end -}}
{{- end -}}

{{/* A probe of a path of the admin listener. Without an admin listener, a probe of /v2/. */}}
{{- define "larder.probe" -}}
{{- $admin := .root.Values.config.admin -}}
httpGet:
  host: {{ include "larder.host" ($admin | default .root.Values.config.listen) | quote }}
  port: {{ include "larder.port" ($admin | default .root.Values.config.listen) }}
  path: {{ $admin | empty | ternary "/v2/" .path }}
{{- end -}}

{{/* Restrictions of every container. Containers that need root add it themselves. */}}
{{- define "larder.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end -}}

{{- define "larder.asDaemon" -}}
{{ include "larder.confined" . }}
runAsNonRoot: true
runAsUser: {{ .Values.runAs.user }}
runAsGroup: {{ .Values.runAs.group }}
capabilities: {drop: [ALL]}
{{- end -}}

{{/* containerd's folder and socket belong to root. */}}
{{- define "larder.asRoot" -}}
{{ include "larder.confined" . }}
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The image sets LARDER_CACHE_DIR. The chart's configuration overrides it. */}}
{{- define "larder.settings" -}}
- name: LARDER_CONFIG
  value: /etc/larder/larder.yaml
- name: LARDER_CACHE_DIR
  value: {{ .Values.config.cache.dir | quote }}
{{- end -}}

{{- define "larder.mirrorArgs" -}}
- --containerd-dir={{ .Values.mirror.containerdDir }}
{{- if .Values.mirror.containerdVersion }}
- --containerd-version={{ .Values.mirror.containerdVersion }}
{{- else }}
- --containerd-socket={{ .Values.mirror.containerdSocket }}
{{- end }}
{{- range .Values.mirror.registries }}
- --registry={{ . }}
{{- end }}
{{- with .Values.mirror.filesDir }}
{{- range $flag, $file := dict "ca" $.Values.mirror.ca "client-cert" $.Values.mirror.clientCert "client-key" $.Values.mirror.clientKey "credentials" $.Values.mirror.credentials }}
{{- if $file }}
- --{{ $flag }}={{ $.Values.mirror.filesDir }}/{{ $file }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "larder.folderMounts" -}}
{{- range $i, $folder := .Values.folders }}
- {name: folder-{{ $i }}, mountPath: {{ $folder | quote }}}
{{- end }}
{{- end -}}

{{- define "larder.mirrorMounts" -}}
- {name: config, mountPath: /etc/larder, readOnly: true}
- {name: hosts, mountPath: {{ .Values.mirror.containerdDir | quote }}}
{{- if not .Values.mirror.containerdVersion }}
- {name: containerd, mountPath: {{ .Values.mirror.containerdSocket | quote }}, readOnly: true}
{{- end }}
{{- with .Values.mirror.filesDir }}
- {name: mirror-files, mountPath: {{ . | quote }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "larder.mirrorVolumes" -}}
- name: config
  configMap: {name: {{ include "larder.fullname" . }}}
- name: hosts
  hostPath: {path: {{ .Values.mirror.containerdDir | quote }}, type: DirectoryOrCreate}
{{- if not .Values.mirror.containerdVersion }}
- name: containerd
  hostPath: {path: {{ .Values.mirror.containerdSocket | quote }}, type: Socket}
{{- end }}
{{- with .Values.mirror.filesDir }}
- name: mirror-files
  hostPath: {path: {{ . | quote }}, type: Directory}
{{- end }}
{{- end -}}
