package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// posts sends one body again and again, `@@` in it replaced by the number of the request, until standard input ends, and
// prints the result. What is not answered with -expect has failed. For -rate and -clients see calls.
func posts(arguments []string) error {
	flags := flag.NewFlagSet("posts", flag.ExitOnError)
	url := flags.String("url", "", "where to")
	name := flags.String("name", "", "of the server in its certificate; empty: as in the URL")
	ca := flags.String("ca", "", "file with the CAs of the server")
	certificate := flags.String("cert", "", "file with our own certificate")
	key := flags.String("key", "", "file with its key")
	file := flags.String("body", "", "file with the body")
	expect := flags.String("expect", "", "what a good answer contains")
	rate := flags.Float64("rate", 0, "requests a second")
	clients := flags.Int("clients", 1, "requests at once, without -rate")
	_ = flags.Parse(arguments)

	body, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	trust, err := trusting(*ca, *certificate, *key)
	if err != nil {
		return err
	}
	trust.ServerName = *name
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: trust, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1000,
	}}
	call := func(number int) error {
		numbered := bytes.ReplaceAll(body, []byte("@@"), []byte(strconv.Itoa(number)))
		return post(client, *url, numbered, []byte(*expect))
	}
	for number := range 3 {
		if err := call(-1 - number); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return (&caller{ctx: ctx, call: call}).run(*rate, *clients)
}

func post(client *http.Client, url string, body, expect []byte) error {
	answer, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && !bytes.Contains(content, expect) {
		err = fmt.Errorf("%s: %.500s", answer.Status, content)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05.000"), err)
	}
	return err
}

func trusting(ca, certificate, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	trust.RootCAs.AppendCertsFromPEM(pem)
	if certificate == "" {
		return trust, nil
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	trust.Certificates = []tls.Certificate{pair}
	return trust, err
}
