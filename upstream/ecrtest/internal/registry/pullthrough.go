package registry

import "time"

// PullThrough is one of ECR's own pull-through cache rules.
type PullThrough struct {
	Prefix string    // of the names of repositories, without the slash
	From   *Registry // the source
	Delay  time.Duration
	Miss   bool
}

// Import is the import of one tag, with everything that belongs to the image.
type Import struct {
	Delay time.Duration // how long the import takes; the caller waits
	Miss  bool          // the pull that causes the import is answered as not found

	finish func()
}

// Finish adds the image to the repository.
func (i *Import) Finish() { i.finish() }
