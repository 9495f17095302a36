// The official Go SDK: mints tokens through the core and serves the JWKS route with its net/http middleware.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/supertokens/supertokens-golang/recipe/jwt"
	"github.com/supertokens/supertokens-golang/supertokens"
)

// The arguments of CreateJWT; nil means an omitted argument.
type request struct {
	Payload      map[string]interface{} `json:"payload"`
	Validity     *uint64                `json:"validity"`
	UseStaticKey *bool                  `json:"useStaticKey"`
}

func main() {
	telemetry := false
	err := supertokens.Init(supertokens.TypeInput{
		Supertokens: &supertokens.ConnectionInfo{ConnectionURI: os.Getenv("CORE"), APIKey: os.Getenv("API_KEY")},
		AppInfo: supertokens.AppInfo{
			AppName: "interop", APIDomain: os.Getenv("API_DOMAIN"), WebsiteDomain: "https://www.example.com",
		},
		RecipeList: []supertokens.Recipe{jwt.Init(nil)},
		Telemetry:  &telemetry,
	})
	if err != nil {
		log.Fatal(err)
	}

	var fetches atomic.Int64
	own := http.NewServeMux()
	own.HandleFunc("/fetches", func(w http.ResponseWriter, r *http.Request) {
		respond(w, map[string]interface{}{"fetches": fetches.Load()})
	})
	own.HandleFunc("/mint", mint)
	withSDK := supertokens.Middleware(own)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/auth/jwt/jwks.json" {
			fetches.Add(1)
		}
		withSDK.ServeHTTP(w, r)
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, counted))
}

func mint(w http.ResponseWriter, r *http.Request) {
	var body request
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	minted, err := jwt.CreateJWT(body.Payload, body.Validity, body.UseStaticKey)
	switch {
	case err != nil:
		respond(w, map[string]interface{}{"error": err.Error()})
	case minted.OK == nil:
		respond(w, map[string]interface{}{"error": "UNSUPPORTED_ALGORITHM_ERROR"})
	default:
		respond(w, map[string]interface{}{"jwt": minted.OK.Jwt})
	}
}

func respond(w http.ResponseWriter, body interface{}) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}
