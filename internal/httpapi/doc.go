// Package httpapi is what every HTTP handler of the registry shares: handlers
// return errors, one writer turns them into answers, and one middleware gives
// each request an id, a log line, its metrics, and a net under panics.
//
// It knows no routes and no content.
package httpapi
