// Package frontend stands before every HTTP face of the fake ECR: it counts a
// request, delays it, limits its rate and lets injected faults act on it.
//
// A face calls [Frontend.Serve] with the [Subject] of the request and with two
// functions: one answers the request, one writes an error in the form of the face's
// protocol. Serve picks the fault that acts on the request and calls one of them
// with an [Exchange], through which the answer is sent: there the fault changes
// headers, cuts and stalls the body and flips bits.
//
// The locks of faults, limits and counts are independent: none is held while another
// one is taken.
package frontend
