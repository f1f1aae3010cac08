// echo answers HTTP requests with what it saw of them, and asks such questions of others: one small static program that
// lets a lesson use any pod as server, client and resolver.
//
//	echo serve [--port 8080]    /healthz says ok, every other path answers with the request as JSON
//	echo get [--timeout 5s] URL prints the answer's body; exit status 1 and a reason on stderr if there is none
//	echo dns [--timeout 5s] NAME prints one address a line
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// answer is what the server says about a request; remote_addr is the sender's address as this end of the path saw it.
type answer struct {
	RemoteAddr string      `json:"remote_addr"`
	LocalAddr  string      `json:"local_addr"`
	Host       string      `json:"host"`
	Method     string      `json:"method"`
	Path       string      `json:"path"`
	Headers    http.Header `json:"headers"`
	Hostname   string      `json:"hostname"`
	Node       string      `json:"node"`
	Body       int64       `json:"body"` // bytes
}

// handle answers when it has the whole body: who gets an answer earlier may stop sending, or wait until both ends give up.
func handle(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	name, _ := os.Hostname()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{r.RemoteAddr, local.String(), r.Host, r.Method, r.RequestURI, r.Header,
		name, os.Getenv("NODE_NAME"), size})
}

func serve(port int) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/", handle)
	server := &http.Server{Addr: ":" + strconv.Itoa(port), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}

func lookup(ctx context.Context, name string) error {
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return err
}

func main() {
	if len(os.Args) < 2 {
		os.Args = append(os.Args, "serve")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	port := flags.Int("port", 8080, "port to listen on (serve)")
	timeout := flags.Duration("timeout", 5*time.Second, "time to wait for an answer (get, dns)")
	flags.Parse(os.Args[2:])
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	var err error
	switch command, n := os.Args[1], flags.NArg(); {
	case command == "serve" && n == 0:
		err = serve(*port)
	case command == "get" && n == 1:
		err = get(ctx, flags.Arg(0))
	case command == "dns" && n == 1:
		err = lookup(ctx, flags.Arg(0))
	default:
		fmt.Fprintln(os.Stderr, "usage: echo serve [--port N] | get [--timeout D] URL | dns [--timeout D] NAME")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}
