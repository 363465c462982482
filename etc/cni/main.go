// Command romana-cni is the CNI plugin of romana-ovs. It passes each request to the attach agent (`romana-ovs attach`)
// as one JSON message over the agent's Unix socket, and prints the answer. Versions, errors and the environment are
// the business of CNI's own library.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	notAvailable = 50               // CNI specification, STATUS: the plugin cannot serve ADD
	patience     = 90 * time.Second // the agent waits a shorter time for a port, and then says why it is not there
	retry        = 50 * time.Millisecond
)

// config is the part of the network configuration that the plugin itself needs.
type config struct {
	types.PluginConf
	Socket string `json:"socket"`
	Queue  string `json:"queue"`
	// AgentWait is how many seconds an ADD waits for an agent that is away, as while it is replaced by a newer one. After
	// an error kubelet would wait longer before it tries again. An ADD may be done twice: the second replaces the first.
	AgentWait float64 `json:"agentWait"`
}

type request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"container_id"`
	Netns       string          `json:"netns"`
	IfName      string          `json:"ifname"`
	Args        string          `json:"args"`
	Config      json.RawMessage `json:"config"`
	PrevResult  *current.Result `json:"prev_result,omitempty"`
}

type answer struct {
	Result json.RawMessage `json:"result"`
	Error  *types.Error    `json:"error"`
}

func parse(args *skel.CmdArgs) (*config, error) {
	conf := &config{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration", err.Error())
	}
	if !filepath.IsAbs(conf.Socket) || !filepath.IsAbs(conf.Queue) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "socket and queue must be absolute paths", "")
	}
	return conf, nil
}

func newRequest(command string, args *skel.CmdArgs, conf *config) (*request, error) {
	req := &request{Command: command, ContainerID: args.ContainerID, Netns: args.Netns, IfName: args.IfName,
		Args: args.Args, Config: args.StdinData}
	if conf.RawPrevResult == nil || command == "DEL" { // DEL needs none, so none can make it fail
		return req, nil
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "invalid prevResult", err.Error())
	}
	prev, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "invalid prevResult", err.Error())
	}
	req.PrevResult = prev
	return req, nil
}

// ask returns the agent's answer. While the agent is away, or ends before it answers, it asks again until wait is over.
func ask(socket string, message []byte, wait time.Duration) (*answer, error) {
	deadline := time.Now().Add(wait)
	for {
		ans, err := exchange(socket, message)
		if err == nil || !time.Now().Before(deadline) {
			return ans, err
		}
		time.Sleep(retry)
	}
}

// exchange sends the request and returns the answer; an error means that the agent is away.
func exchange(socket string, message []byte) (*answer, error) {
	conn, err := net.DialTimeout("unix", socket, patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	ans := &answer{}
	if err := json.Unmarshal(data, ans); err != nil {
		return nil, fmt.Errorf("it ended before it answered")
	}
	return ans, nil
}

// enqueue leaves a DEL for the agent's next start.
func enqueue(folder string, req *request, message []byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err = file.Write(message); err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(req.ContainerID+"/"+req.IfName)))
	return os.Rename(file.Name(), filepath.Join(folder, name))
}

// call passes a request on and prints what comes back; without an agent it fails with the code `away`.
func call(command string, away uint) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		conf, err := parse(args)
		if err != nil {
			return err
		}
		req, err := newRequest(command, args, conf)
		if err != nil {
			return err
		}
		message, err := json.Marshal(req)
		if err != nil {
			return err
		}
		var wait time.Duration
		if command == "ADD" {
			wait = time.Duration(conf.AgentWait * float64(time.Second))
		}
		ans, err := ask(conf.Socket, message, wait)
		if err != nil && command == "DEL" {
			if err = enqueue(conf.Queue, req, message); err != nil {
				return types.NewError(types.ErrIOFailure, "the attach agent is away, and DEL cannot be queued", err.Error())
			}
			return nil
		}
		if err != nil {
			return types.NewError(away, "the attach agent of romana-ovs is away (romana-ovs attach)", err.Error())
		}
		if ans.Error != nil || command != "ADD" {
			if ans.Error == nil {
				return nil
			}
			return ans.Error
		}
		result, err := current.NewResult(ans.Result)
		if err != nil {
			return types.NewError(types.ErrInternal, "the attach agent's answer is no result", err.Error())
		}
		return types.PrintResult(result, conf.CNIVersion)
	}
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    call("ADD", types.ErrTryAgainLater),
		Del:    call("DEL", types.ErrTryAgainLater),
		Check:  call("CHECK", types.ErrTryAgainLater),
		GC:     call("GC", types.ErrTryAgainLater),
		Status: call("STATUS", notAvailable),
	}, version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "CNI plugin romana-cni")
}
