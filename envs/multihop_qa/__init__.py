"""Multi-hop question answering with a search tool: HotpotQA, 2WikiMultihopQA and MuSiQue on one implementation."""
