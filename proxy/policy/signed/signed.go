package signed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed/awssigner"
)

// Options are the settings of a [Condition]. At least one of Notation and Cosign is set.
type Options struct {
	Content  Content
	Notation *Notation // nil: notation's signatures do not count
	Cosign   *Cosign   // nil: cosign's signatures do not count

	// HTTP asks the revocation services that certificates name (OCSP, CRL). They come from certificates
	// that anybody may have made, so its transport must guard what it connects to. Nil asks none:
	// their answer is then not known.
	HTTP *http.Client
	// Signer asks AWS Signer about the revocation of its signatures. Nil asks nothing: the answer is
	// then not known.
	Signer awssigner.API

	// MaxSignatures bounds the signatures of an image that are verified. Zero means 32.
	MaxSignatures int
	// MaxSize bounds each manifest and blob of a signature, in bytes. Zero means 1 MiB.
	MaxSize int64
	// Timeout bounds one decision. Zero means 20 seconds.
	Timeout time.Duration
	// Recheck is how long a revocation service's answer counts. Zero means 24 hours.
	Recheck time.Duration
	// Retry is how long a refusal counts, as a signature may come after its image. Zero means a minute.
	Retry time.Duration
	// Now is the clock of [policy.Answer.Until]. Nil means time.Now. The libraries use their own.
	Now func() time.Time
}

// Condition is a [policy.Condition] that holds for signed images. It may be used by several goroutines.
type Condition struct {
	opts     Options
	notation *notationVerifier // nil without
	cosign   *cosignVerifier   // nil without
	basis    string            // of keys, identities, trust policy and trust store
}

// errTimeout is the cause of the end of a decision that took too long.
var errTimeout = errors.New("the signatures were not read in time")

// New reads the files that the options name, and reports every mistake in them. Later changes of the
// files do not count: make another one. Keys in KMS are read when they are first used.
func New(opts Options) (*Condition, error) {
	opts = opts.withDefaults()
	c := &Condition{opts: opts}
	hash := sha256.New()
	var mistakes []error
	if opts.Notation == nil && opts.Cosign == nil {
		mistakes = append(mistakes, errors.New("signed needs notation or cosign"))
	}
	if opts.Notation != nil {
		v, err := newNotation(*opts.Notation, opts.HTTP, opts.Signer, hash)
		mistakes = append(mistakes, err)
		c.notation = v
	}
	if opts.Cosign != nil {
		v, err := newCosign(*opts.Cosign, hash)
		mistakes = append(mistakes, err)
		c.cosign = v
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	c.basis = hex.EncodeToString(hash.Sum(nil))
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.MaxSignatures == 0 {
		o.MaxSignatures = 32
	}
	if o.MaxSize == 0 {
		o.MaxSize = 1 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.Recheck == 0 {
		o.Recheck = 24 * time.Hour
	}
	if o.Retry == 0 {
		o.Retry = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Basis returns a digest of the keys, the identities, the trust policy and the trust stores as they were read.
func (c *Condition) Basis() string { return c.basis }

// Evaluate is for [policy.Condition]. The error is that of what could not be read or asked; a good
// signature beside it holds all the same.
func (c *Condition) Evaluate(ctx context.Context, image policy.Image) (policy.Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.Timeout, errTimeout)
	defer cancel()
	e := &evaluation{
		reader: reader{content: c.opts.Content, image: image, maxSize: c.opts.MaxSize},
		left:   c.opts.MaxSignatures,
	}
	held := c.evaluate(ctx, e)
	if ended := context.Cause(ctx); held == nil && ended != nil {
		return policy.Answer{}, fmt.Errorf("verify the signatures of %s@%s: %w", image.Repository, image.Digest, ended)
	}
	if held == nil && len(e.unknown) > 0 {
		return policy.Answer{}, fmt.Errorf("verify the signatures of %s@%s: %w", image.Repository, image.Digest, errors.Join(e.unknown...))
	}
	answer := policy.Answer{Basis: c.basisOf(e)}
	if held == nil {
		answer.Reason, answer.Until = e.refusal(c), c.opts.Now().Add(c.opts.Retry)
		return answer, nil
	}
	answer.Holds, answer.Reason = true, held.reason
	if held.until.After(c.opts.Now()) { // a trust policy may accept what has ended
		answer.Until = held.until
	}
	if held.revocable {
		answer.Until = earlier(answer.Until, c.opts.Now().Add(c.opts.Recheck))
	}
	return answer, nil
}

// evaluate returns the first good signature, or nil.
func (c *Condition) evaluate(ctx context.Context, e *evaluation) *good {
	if c.notation != nil {
		if g, done := c.notation.skip(e); done {
			return g
		}
	}
	referrers, err := e.referrers(ctx)
	if err != nil {
		e.unknown = append(e.unknown, err)
	}
	for _, d := range referrers {
		var g *good
		switch kind := c.kind(ctx, e, d); {
		case c.notation != nil && kind == notationType:
			g = e.next(d, func() (*good, error) { return c.notation.verify(ctx, e, d) })
		case c.cosign != nil && strings.HasPrefix(kind, bundleType):
			g = e.next(d, func() (*good, error) { return c.cosign.verifyReferrer(ctx, e, d) })
		}
		if g != nil {
			return g
		}
	}
	if c.cosign != nil {
		return c.cosign.verifyTag(ctx, e)
	}
	return nil
}

// kind returns the artifact type of a referrer. Some registries list the type of the configuration in its
// place, which is that of an empty one.
func (c *Condition) kind(ctx context.Context, e *evaluation, d ocispec.Descriptor) string {
	if d.ArtifactType != "" && d.ArtifactType != ocispec.MediaTypeEmptyJSON {
		return d.ArtifactType
	}
	if e.probes++; e.probes > c.opts.MaxSignatures {
		e.over++
		e.seen = append(e.seen, d.Digest.String())
		return ""
	}
	_, m, err := e.manifest(ctx, d.Digest.String())
	var bad *refusedError
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &bad) {
		e.unknown = append(e.unknown, err)
	}
	if m.ArtifactType == "" {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

// basisOf returns a digest of what an answer rests on.
func (c *Condition) basisOf(e *evaluation) string {
	slices.Sort(e.seen)
	sum := sha256.Sum256([]byte(c.basis + "\n" + strings.Join(e.seen, "\n")))
	return hex.EncodeToString(sum[:])
}

// evaluation is one decision.
type evaluation struct {
	reader
	left    int      // signatures that may be verified yet
	over    int      // signatures beyond that
	probes  int      // referrers that were read for their type
	seen    []string // digests of the signatures
	bad     []string // why signatures do not count
	unknown []error  // what could not be read or asked
}

// good is a signature that counts.
type good struct {
	reason    string
	until     time.Time // when it ends; zero for never
	revocable bool      // it was not revoked when it was verified
}

// next verifies one signature, if there may be one more. It notes why it does not count.
func (e *evaluation) next(d ocispec.Descriptor, verify func() (*good, error)) *good {
	e.seen = append(e.seen, d.Digest.String())
	if e.left--; e.left < 0 {
		e.over++
		return nil
	}
	g, err := recovered(verify)
	var refused *refusedError
	switch {
	case err == nil:
		return g
	case errors.As(err, &refused):
		e.bad = append(e.bad, fmt.Sprintf("%s (%s)", refused.why, short(d.Digest)))
	default:
		e.unknown = append(e.unknown, err)
	}
	return nil
}

// recovered calls verify, and returns a panic as an error: anybody may have made the signature that a library
// reads.
func recovered(verify func() (*good, error)) (g *good, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			g, err = nil, fmt.Errorf("the verification of a signature panicked: %v", cause)
		}
	}()
	return verify()
}

// refusal returns why an image is refused, and what to do.
func (e *evaluation) refusal(c *Condition) string {
	if len(e.bad) == 0 && e.over == 0 {
		var kinds []string
		if c.notation != nil {
			kinds = append(kinds, "notation")
		}
		if c.cosign != nil {
			kinds = append(kinds, "cosign")
		}
		return fmt.Sprintf("it has no signature of %s: sign this digest", strings.Join(kinds, " or "))
	}
	shown := e.bad
	const most = 3
	more := ""
	if extra := len(shown) - most; extra > 0 {
		shown, more = shown[:most], fmt.Sprintf("; %d more", extra)
	}
	reason := "no signature counts: " + strings.Join(shown, "; ") + more
	if e.over > 0 {
		reason += fmt.Sprintf("; it has %d signatures, more than are looked at", len(e.seen))
	}
	return reason + ". Sign this digest as the rule demands"
}

// refusedError says why a signature does not count. Other errors say that it is not known.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

// refused returns a refusedError. The texts of libraries repeat parts of signatures, which anybody may
// have made: they are cut, and printable.
func refused(format string, args ...any) error {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(fmt.Sprintf(format, args...), "?"))
	const longest = 300
	if runes := []rune(text); len(runes) > longest {
		text = string(runes[:longest]) + "…"
	}
	return &refusedError{text}
}

// short returns the beginning of a digest, which may be none, for people.
func short(d digest.Digest) string {
	const shown = len("sha256:") + 12
	return strings.ToValidUTF8(string(d)[:min(len(d), shown)], "?")
}
