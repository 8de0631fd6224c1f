package keep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/name"
)

const (
	// imagesAtOnce bounds the images that are fetched at the same time.
	imagesAtOnce = 2
	// listsEvery is how often the lists are read again.
	listsEvery = time.Minute
)

// Keeper keeps images. Its methods may be called from several goroutines at once.
type Keeper struct {
	log *slog.Logger

	// Set by Use, before Run:
	bringer   *bring.Bringer
	store     *cache.Store
	postponed func(host string) error

	slots   chan struct{} // one for each image that is being fetched
	changed chan struct{} // capacity 1; filled when the configuration has changed

	reading sync.Mutex // held by the goroutine that reads the lists

	mu        sync.RWMutex // guards what follows, and the state of each image
	groups    []config.Keep
	images    map[string]*kept
	referrers map[string]bool   // repositories whose signatures are kept, <host>/<name>
	unread    map[string]string // lists that cannot be read, with the error that was logged, or ""
}

// New returns the keeper of a configuration. It reads the lists. The error is about its metric.
func New(groups []config.Keep, log *slog.Logger, meter metric.MeterProvider) (*Keeper, error) {
	k := &Keeper{
		groups: groups, log: log, slots: make(chan struct{}, imagesAtOnce), changed: make(chan struct{}, 1),
		images: make(map[string]*kept), unread: make(map[string]string),
	}
	k.readGroups()
	if meter == nil {
		return k, nil
	}
	if err := k.observe(meter); err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	return k, nil
}

// Use sets what the keeper works with. It is called once, before Run. postponed returns an error
// for an upstream, by its host, that must not be asked now.
func (k *Keeper) Use(bringer *bring.Bringer, store *cache.Store, postponed func(host string) error) {
	k.bringer, k.store, k.postponed = bringer, store, postponed
}

// Pins reports whether an image, by its name <host>/<repository>:<tag>, is kept: a tag that is
// kept, or one under which cosign has put signatures of a repository whose referrers are kept.
func (k *Keeper) Pins(image string) bool {
	repository, tag, _ := strings.Cut(image, ":sha256-")
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.images[image] != nil || tag != "" && k.referrers[repository]
}

// Digests lists the images that are kept by a digest.
func (k *Keeper) Digests() []cache.RepoDigest {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var all []cache.RepoDigest
	for _, i := range k.images {
		if i.image.Digest != "" {
			all = append(all, cache.RepoDigest{Repository: i.repo, Digest: i.image.Digest})
		}
	}
	return all
}

// ServesRecorded reports whether clients get a tag as it is recorded, until the image that it names
// upstream is whole here.
func (k *Keeper) ServesRecorded(repo cache.Repository, tag string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.images) == 0 {
		return false
	}
	i := k.images[repo.Image(tag)]
	return i != nil && i.servesRecorded
}

// Set replaces the configuration while Run runs. What it keeps in the same way goes on.
func (k *Keeper) Set(groups []config.Keep) {
	k.mu.Lock()
	k.groups = groups
	k.mu.Unlock()
	k.readGroups()
	select {
	case k.changed <- struct{}{}:
	default: // Run is about to see it
	}
}

// TryAgain has Run ask at once for all images, as another upstream may be asked now.
func (k *Keeper) TryAgain() {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, i := range k.images {
		i.tryAgain()
	}
}

// Run keeps the images until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	ctx = cache.Unattended(ctx)
	running := make(map[*kept]*following)
	ticker := time.NewTicker(listsEvery)
	defer ticker.Stop()
	for {
		now := k.list()
		for i, f := range running {
			if ctx.Err() != nil || !now[i] {
				f.stop()
			}
		}
		for i, f := range running { // before another one follows the same image
			if ctx.Err() != nil || !now[i] {
				<-f.ended
				delete(running, i)
			}
		}
		if ctx.Err() != nil {
			return
		}
		for i := range now {
			if running[i] == nil {
				running[i] = k.start(ctx, i)
			}
		}
		select {
		case <-ctx.Done():
		case <-k.changed:
		case <-ticker.C:
			k.readGroups()
		}
	}
}

// following is the goroutine that follows an image.
type following struct {
	stop  context.CancelFunc
	ended chan struct{} // closed at its end
}

func (k *Keeper) start(ctx context.Context, i *kept) *following {
	ctx, stop := context.WithCancel(ctx)
	f := &following{stop, make(chan struct{})}
	go func() {
		defer close(f.ended)
		defer stop()
		k.follow(ctx, i)
	}()
	return f
}

func (k *Keeper) list() map[*kept]bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := make(map[*kept]bool)
	for _, i := range k.images {
		all[i] = true
	}
	return all
}

// readGroups finds out which images are kept. Those of a list that cannot be read stay.
func (k *Keeper) readGroups() {
	k.reading.Lock()
	defer k.reading.Unlock()
	k.mu.RLock()
	groups := k.groups
	k.mu.RUnlock()
	images, referrers := make(map[string]*kept), make(map[string]bool)
	for _, group := range groups {
		named := group.Images
		if group.File != "" {
			listed, err := readList(group.File)
			if err != nil {
				k.noteUnread(group.File, err)
				listed = k.listedBefore(group)
			} else {
				k.noteUnread(group.File, nil)
			}
			named = slices.Concat(named, listed)
		}
		for _, img := range named {
			if images[img.String()] == nil {
				images[img.String()] = k.keptImage(img, group)
			}
			if group.Referrers {
				referrers[img.Host+"/"+img.Repository] = true
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.images, k.referrers = images, referrers
}

// keptImage returns an image of a group: the one that is kept already, or a new one.
func (k *Keeper) keptImage(img name.Image, group config.Keep) *kept {
	settings := settingsOf(group)
	k.mu.RLock()
	before := k.images[img.String()]
	k.mu.RUnlock()
	if before != nil && before.settings == settings {
		return before
	}
	platforms, err := bring.ParsePlatforms(group.Platforms)
	if err != nil {
		k.log.Error("the platforms of images to keep are wrong", "error", err) // the configuration was checked
	}
	return &kept{
		image:          bring.Image{Image: img, Platforms: platforms, Referrers: group.Referrers},
		repo:           cache.Repository{Upstream: img.Host, Name: img.Repository},
		settings:       settings,
		servesRecorded: img.Tag != "" && !settings.atOnce,
		status:         Status{Image: img.String(), State: Unknown},
		wake:           make(chan struct{}, 1),
	}
}

// listedBefore returns the images of a group as they were read before.
func (k *Keeper) listedBefore(group config.Keep) []name.Image {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var all []name.Image
	for _, i := range k.images {
		if i.settings.file == group.File {
			all = append(all, i.image.Image)
		}
	}
	return all
}

// noteUnread logs once that a list cannot be read.
func (k *Keeper) noteUnread(path string, err error) {
	var text string
	if err != nil {
		text = err.Error()
	}
	k.mu.Lock()
	isNews := k.unread[path] != text
	k.unread[path] = text
	k.mu.Unlock()
	if isNews && err != nil {
		k.log.Warn("a list of images to keep cannot be used; those of before stay", "error", err)
	}
}

// maxList is the size of the largest list, in bytes.
const maxList = 16 << 20

// readList reads a list of images.
func readList(path string) ([]name.Image, error) {
	raw, err := config.ReadFile(path, maxList)
	if err != nil {
		return nil, err
	}
	texts, err := bring.ReadList(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var all []name.Image
	for _, text := range texts {
		img, err := name.ParseShortImage(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, img)
	}
	return all, nil
}

// isGone reports whether an upstream says that an image does not exist.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// settings are how an image is kept.
type settings struct {
	file, platforms   string
	every             time.Duration
	atOnce, referrers bool
}

func settingsOf(group config.Keep) settings {
	return settings{
		file: group.File, platforms: strings.Join(group.Platforms, " "),
		every: group.Every, atOnce: group.Switch == config.KeepAtOnce, referrers: group.Referrers,
	}
}

// kept is an image that is kept.
type kept struct {
	image    bring.Image
	repo     cache.Repository
	settings settings
	wake     chan struct{} // capacity 1

	// Keeper.mu guards what follows.
	servesRecorded bool // clients get the tag as it is recorded; true until it is known what is here
	status         Status
	meter          *bring.Meter // of what is being fetched, or nil
}

func (i *kept) tryAgain() {
	select {
	case i.wake <- struct{}{}:
	default: // it is about to ask
	}
}
