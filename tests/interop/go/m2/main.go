// M2 with golang-jwt and keyfunc: 401 for an invalid token, 403 for a token without the marker.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/MicahParks/keyfunc/v2"
	"github.com/golang-jwt/jwt/v5"
)

func main() {
	keys, err := keyfunc.Get(os.Getenv("JWKS"), keyfunc.Options{RefreshUnknownKID: true})
	if err != nil {
		log.Fatal(err)
	}
	whoami := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status(r.Header.Get("Authorization"), keys.Keyfunc))
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(whoami)))
}

func status(authorization string, key jwt.Keyfunc) int {
	text, found := strings.CutPrefix(authorization, "Bearer ")
	if !found {
		return http.StatusUnauthorized
	}
	token, err := jwt.Parse(text, key, jwt.WithValidMethods([]string{"RS256"}))
	if err != nil {
		log.Print(err)
		return http.StatusUnauthorized
	}
	claims, found := token.Claims.(jwt.MapClaims)
	if !found || claims["source"] != "microservice" {
		return http.StatusForbidden
	}
	return http.StatusOK
}
