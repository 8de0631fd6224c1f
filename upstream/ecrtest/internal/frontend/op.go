package frontend

// Op is a kind of request, or a set of kinds.
type Op uint

// The kinds of requests. All but Storage go to the host of the registry.
const (
	API         Op = 1 << iota // the ECR API
	Ping                       // /v2/
	Manifest                   // /v2/<name>/manifests/<reference>
	Blob                       // /v2/<name>/blobs/<digest>, which redirects
	Tags                       // /v2/<name>/tags/list
	Referrers                  // /v2/<name>/referrers/<digest>
	Storage                    // a signed URL
	Catalog                    // /v2/_catalog
	STS                        // the API of STS
	Credentials                // the credentials of a container or an instance
	Token                      // /token/ of ECR Public

	Any = API | Ping | Manifest | Blob | Tags | Referrers | Storage | Catalog | STS | Credentials | Token
)
