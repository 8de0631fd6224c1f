package auth

import (
	"time"
)

// SetHelperTimeout has helpers end earlier, as a test cannot wait for ten seconds.
func (d *DockerConfig) SetHelperTimeout(timeout time.Duration) { d.helperTimeout = timeout }

// HelperTimeout is the timeout that is set.
func (d *DockerConfig) HelperTimeout() time.Duration { return d.helperTimeout }
