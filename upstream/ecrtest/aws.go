package ecrtest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// AWS is what registries share: accounts with their users and roles, the
// sessions of STS, the clock, and each other. Every [Server] is in one; those
// made with the same [Options.AWS] answer for each other's hosts and regions.
// Its methods may be called by several goroutines at once.
type AWS struct {
	account string // of the first registry, and of the default user
	now     func() time.Time
	secret  string

	mu         sync.RWMutex // guards what follows
	registries []*Server    // at most one for each account and region, and one that is Public
	regions    map[string]*region
	users      map[string]caller // by ARN
	roles      map[string]*Role  // by ARN
	keys       map[string]key    // by access key
	containers map[string]string // ARNs of roles, by the authorization that a container has
	instance   string            // the ARN of the instance's role, if it has one
	sessions   int               // begun so far; makes their keys differ
	calls      map[Call]int
}

// region is what the registries of a region share.
type region struct {
	tokenEpoch atomic.Int64 // tokens of an earlier one have expired
}

// Call is a call of ECR's API or of STS.
type Call struct {
	Principal string // ARN of the user or session that signed it; empty where nobody did
	Region    string // that it was signed for
	Action    string // such as ecr:GetAuthorizationToken
}

// newAWS returns the surroundings of a first registry, with the user
// "larder", who may do everything, and whose access key is opts.AccessKey.
func newAWS(opts Options) *AWS {
	a := &AWS{
		account:    opts.Account,
		now:        opts.Now,
		secret:     opts.SecretKey,
		regions:    make(map[string]*region),
		users:      make(map[string]caller),
		roles:      make(map[string]*Role),
		keys:       make(map[string]key),
		containers: make(map[string]string),
		calls:      make(map[Call]int),
	}
	user := "arn:" + partition(opts.Region) + ":iam::" + opts.Account + ":user/larder"
	a.addUser(user, Policy{Allow("*")})
	a.keys[opts.AccessKey] = key{arn: user}
	return a
}

// join adds a registry, in place of one for the same account and region. It
// returns what the registries of its region share.
func (a *AWS) join(s *Server) *region {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.registries = slices.DeleteFunc(a.registries, func(o *Server) bool {
		return o.opts.Public == s.opts.Public && (o.opts.Public || o.opts.Account == s.opts.Account && o.opts.Region == s.opts.Region)
	})
	a.registries = append(a.registries, s)
	name := s.opts.Region
	if s.opts.Public {
		name = publicHost
	}
	if a.regions[name] == nil {
		a.regions[name] = new(region)
	}
	return a.regions[name]
}

// find returns the first registry for which ok holds, or nil.
func (a *AWS) find(ok func(*Server) bool) *Server {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if i := slices.IndexFunc(a.registries, ok); i >= 0 {
		return a.registries[i]
	}
	return nil
}

// registry returns the private registry of an account in a region, or nil.
func (a *AWS) registry(account, region string) *Server {
	return a.find(func(s *Server) bool {
		return !s.opts.Public && s.opts.Account == account && s.opts.Region == region
	})
}

// hostForm has the account and the region of a private registry's host, in all
// of its forms: standard, FIPS, dual-stack, of any partition.
var hostForm = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.`)

// named returns the registry that a request's Host names, or nil.
func (a *AWS) named(host string) *Server {
	host = strings.ToLower(host)
	if name, _, _ := strings.Cut(host, ":"); name == publicHost || name == "ecr-public.aws.com" {
		return a.find(func(s *Server) bool { return s.opts.Public })
	}
	if m := hostForm.FindStringSubmatch(host); m != nil {
		return a.registry(m[1], m[2])
	}
	return nil
}

// Calls returns how often each call was made. Calls whose signature was
// refused are not in it.
func (a *AWS) Calls() map[Call]int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return maps.Clone(a.calls)
}

func (a *AWS) count(c Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[c]++
}

// partition returns the partition of a region.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	default:
		return "aws"
	}
}
