package ecrtest

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/awsapi"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/secret"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/token"
)

// AWS is the state that registries share: accounts with their users and roles, the
// sessions of STS, the clock, and the list of the registries. Every [Server] is in one; those
// made with the same [Options.AWS] answer for each other's hosts and regions. Its
// methods may be called by several goroutines at once.
type AWS struct {
	account  string // of the first registry, and of the default user
	now      func() time.Time
	secret   secret.Key
	accounts *iam.Accounts
	log      awsapi.Log

	mu         sync.RWMutex            // guards the fields below
	registries []*Server               // at most one for each account and region, and one that is Public
	epochs     map[string]*token.Epoch // by region; those of ECR Public by its host
}

// newAWS returns an AWS for a first registry with these options. It has the user
// "larder", whose access key is opts.AccessKey and who may do everything.
func newAWS(opts Options) *AWS {
	a := &AWS{
		account:  opts.Account,
		now:      opts.Now,
		secret:   secret.Key(opts.SecretKey),
		accounts: iam.NewAccounts(opts.Now),
		epochs:   make(map[string]*token.Epoch),
	}
	user := "arn:" + iam.Partition(opts.Region) + ":iam::" + opts.Account + ":user/larder"
	a.accounts.AddUserKey(user, Policy{Allow("*")}, opts.AccessKey)
	return a
}

// epoch returns the token epoch of a region, or of ECR Public.
func (a *AWS) epoch(region string, public bool) *token.Epoch {
	if public {
		region = registry.PublicHost
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epochs[region] == nil {
		a.epochs[region] = new(token.Epoch)
	}
	return a.epochs[region]
}

// add adds a registry, in place of the one for the same account and region.
func (a *AWS) add(s *Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.registries = slices.DeleteFunc(a.registries, func(o *Server) bool { return o.registry.Host() == s.registry.Host() })
	a.registries = append(a.registries, s)
}

// find returns the first registry for which ok returns true, or nil. ok is called
// while a.mu is held.
func (a *AWS) find(ok func(*registry.Registry) bool) *Server {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if i := slices.IndexFunc(a.registries, func(s *Server) bool { return ok(s.registry) }); i >= 0 {
		return a.registries[i]
	}
	return nil
}

// server returns the private registry of an account in a region, or nil.
func (a *AWS) server(account, region string) *Server {
	return a.find(func(r *registry.Registry) bool {
		return !r.Public() && r.Account() == account && r.Region() == region
	})
}

// directory finds the registries of an AWS.
type directory struct{ *AWS }

// Find returns the private registry of an account in a region, or nil.
func (d directory) Find(account, region string) *registry.Registry {
	if s := d.server(account, region); s != nil {
		return s.registry
	}
	return nil
}

// hostForm matches the account and the region of a private registry's host, in all
// of its forms: standard, FIPS, dual-stack, of any partition.
var hostForm = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.`)

// byHost returns the registry that the Host of a request names, or nil.
func (a *AWS) byHost(host string) *Server {
	host = strings.ToLower(host)
	if name, _, _ := strings.Cut(host, ":"); name == registry.PublicHost || name == "ecr-public.aws.com" {
		return a.find((*registry.Registry).Public)
	}
	if m := hostForm.FindStringSubmatch(host); m != nil {
		return a.server(m[1], m[2])
	}
	return nil
}

// byCall returns the registry whose API a call is for, or nil.
func (a *AWS) byCall(c awsapi.Call) *Server {
	return a.find(func(r *registry.Registry) bool {
		return r.Public() == c.Public && (c.Public || r.Region() == c.Signature.Region)
	})
}

// Calls returns how often each call was made. Calls with a refused signature are not
// counted.
func (a *AWS) Calls() map[Call]int { return a.log.Calls() }

// AddUser adds an IAM user, or replaces its policy, and returns a new access key of
// the user. arn is like arn:aws:iam::123456789012:user/ci.
func (a *AWS) AddUser(arn string, policy Policy) Key { return a.accounts.AddUser(arn, policy) }

// AddRole adds an IAM role, or replaces it. Running sessions get the new policy.
func (a *AWS) AddRole(r Role) { a.accounts.AddRole(r) }

// Assume begins a session of a role without asking for permission, and returns its
// credentials. The error is [fs.ErrNotExist] if there is no such role.
func (a *AWS) Assume(role, session string) (Key, error) { return a.accounts.Assume(role, session) }

// ContainerAuthorization returns the Authorization that a container with the role
// sends to get credentials. It is the content of the file
// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE. The error is [fs.ErrNotExist] if there is no
// such role.
func (a *AWS) ContainerAuthorization(role string) (string, error) {
	return a.accounts.AuthorizeContainer(role)
}

// SetInstanceRole gives the instance a role; "" takes it away. The instance metadata
// service gives out its credentials at the endpoint of the registry. The error is
// [fs.ErrNotExist] if there is no such role.
func (a *AWS) SetInstanceRole(role string) error { return a.accounts.SetInstanceRole(role) }
