package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// The tests of this package are white-box: they need the admin listener's address, which the system chooses, and parts of
// a daemon by themselves, such as a server on pipes, or telemetry with a registry of the test's.

// repository is the module's root, seen from this package's folder, where go test runs its tests.
const repository = "../../.."

// pollInterval is between two looks at something that a test waits for.
const pollInterval = 20 * time.Millisecond

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setCredentials gives the AWS SDK the credentials that a fake ECR knows, and keeps it from looking for others.
func setCredentials(t testing.TB, ecr *ecrtest.Running) {
	t.Helper()
	for name, value := range ecr.Environment() {
		t.Setenv(name, value)
	}
	for name, value := range (ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}).Environment() {
		t.Setenv(name, value)
	}
}

// configFor is a configuration with a fake ECR as its upstream, and a cache beside the file. The listeners have free
// ports.
func configFor(ecr *ecrtest.Running) string {
	return fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {dir: cache, min_free: 0}
default_upstream: %s
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
`, ecr.Host(), ecr.Host(), ecr.Endpoint, ecr.Endpoint)
}

// writeConfig writes a configuration file and returns its path.
func writeConfig(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "larder.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pass lets time pass by the clock of a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }
