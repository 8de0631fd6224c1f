// Package auth gives requests to a registry their credentials: it reads the
// registry's challenges, finds logins, and keeps bearer tokens.
//
// A caller asks [Challenged.Authorize] for the credentials of each request. If the
// registry answers 400, 401 or 403, it gives the answer to [Challenged.Refused],
// which reads the challenge, drops a token that has expired, and says whether to
// send the request again. Any other answer goes to [Challenged.Accepted].
//
//	Challenged ── the registry's latest challenge
//	  ├─ realms ── which token services may be asked, and which of them get the login
//	  ├─ tokenService ── bearer tokens, by scope
//	  ├─ Logins ── Password, DockerConfig, or ECR Public's (package ecr)
//	  │    └─ helper ── one run of docker-credential-…
//	  └─ Refusals ── spaces renewals, by scope
//
// Each of Challenged, DockerConfig and Refusals has one lock. No two are held
// together, and none while a service is asked, a helper runs or a file is read.
package auth
