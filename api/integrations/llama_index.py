"""A LlamaIndex retriever over a server.

retriever = RagRetriever(url="http://127.0.0.1:8000", store="manual", key="…")
nodes = retriever.retrieve("Which file formats can be ingested?")
"""

from __future__ import annotations

from api.extras import extra
from api.integrations.searching import Json, Searching, metadata_of, text_of

with extra("llama-index"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


class RagRetriever(BaseRetriever):
    """The chunks of a store as nodes, best first; a node's id is the chunk's, its score the relevance."""

    def __init__(self, url: str, store: str, **options: object) -> None:
        """`options` are the fields of `Searching`: `key`, `limit`, `filters`, `mode`, `min_relevance`."""
        super().__init__()
        self.searching = Searching.model_validate({"url": url, "store": store, **options})

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [self._node(hit) for hit in self.searching.search(query_bundle.query_str)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [self._node(hit) for hit in await self.searching.asearch(query_bundle.query_str)]

    def _node(self, hit: Json) -> NodeWithScore:
        metadata = metadata_of(hit, self.searching.store)
        node = TextNode(id_=str(hit["chunk_id"]), text=text_of(hit), metadata=metadata)
        return NodeWithScore(node=node, score=hit["score"])
